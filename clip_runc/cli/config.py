"""``clipctl config``: the settings in force, whether they can be used, and what each means."""

from __future__ import annotations

import click

from clip_runc import config_files
from clip_runc.cli.console import emit_json
from clip_runc.config import DEFAULTS
from clip_runc.errors import ConfigError


@click.group("config")
def command() -> None:
    """Show, check and explain the settings.

    Later ones override: defaults, /etc/clip-runc/config.toml, /etc/clip-runc/config.d/*.toml in
    the order of names, an ordinary user's ~/.config/clip-runc/config.toml, CLIP_RUNC_<KEY> in the
    environment.  A file named by --config or by CLIP_RUNC_CONFIG takes the place of all files.
    """


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="As a JSON object.")
def show(as_json: bool) -> None:
    """Every setting as it is in force, and where it was set; the output is a usable file."""
    found = config_files.origins()
    if as_json:
        emit_json({key: {"value": one.value, "place": one.place} for key, one in found.items()})
        return
    for key, one in found.items():
        click.echo(f"{key} = {config_files.toml(one.value)}  # {one.place}")


@command.command("check")
def check() -> int:
    """Check every file and variable; exits with 1 when something cannot be used."""
    failed = False
    for name, problems in config_files.check_all():
        if not problems:
            click.echo(f"✓ {name}")
        for problem in problems:
            failed = True
            click.echo(f"✗ {problem.message}")
            if problem.hint:
                click.echo(f"    {problem.hint}")
    return 1 if failed else 0


@command.command("explain")
@click.argument("key", required=False)
def explain(key: str | None) -> None:
    """Say what KEY is for, what it may be, its default and its value; without KEY, all keys."""
    documented = config_files.documentation()
    if key is not None and key not in documented:
        raise ConfigError(f"no setting {key!r}", f"known settings: {', '.join(sorted(DEFAULTS))}")
    found = config_files.origins()
    for name in [key] if key else documented:
        value, place = found[name]
        click.echo(f"{name}: {documented[name]}")
        click.echo(f"  is        {config_files.kind(name)}")
        click.echo(f"  default   {config_files.toml(DEFAULTS[name])}")
        click.echo(f"  now       {config_files.toml(value)}  ({place})")
        click.echo(f"  override  {config_files.variable(name)}=…")
