"""``clipctl doctor``: does this machine have what clip-runc needs, and what to do where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click

from clip_runc.cli.checks.finding import FAIL, MARKS, OK, Finding, worst
from clip_runc.cli.console import emit_json
from clip_runc.config import Settings, load
from clip_runc.errors import ConfigError


@click.command("doctor")
@click.argument("registry", required=False)
@click.option("--json", "as_json", is_flag=True, help="The findings as a JSON array.")
@click.option("--no-self-test", is_flag=True, help="Mount nothing but an empty FUSE directory.")
@click.option("--security", is_flag=True, help="Only privileges, permissions and secrets.")
def command(registry: str | None, as_json: bool, no_self_test: bool, security: bool) -> int:
    """Check kernel, runtime, storage, engines and clipd; mount a small image in each layer mode.

    With REGISTRY, a host or an image's reference, also whether that can be read. Exits with 0
    when all is well, 1 when there is something to know (!), 2 when something does not work (✗).

    With --security: what each process of ours that runs may do, as the kernel sees it (identity,
    capabilities, no_new_privs, seccomp), who may touch our paths, and whether a secret is in an
    argument or an environment.
    """
    found = []
    chosen = secure() if security else findings(registry, self_test=not no_self_test)
    for finding in chosen:
        found.append(finding)
        if not as_json:
            show(finding)
    if as_json:
        emit_json([finding.as_dict() for finding in found])
    return worst(found)


def show(finding: Finding) -> None:
    """Print a line, and below it what to do."""
    click.echo(f"{MARKS[finding.level]} {finding.subject}: {finding.text}")
    if finding.remedy and finding.level:
        click.echo(f"    {finding.remedy}")


def findings(registry: str | None, *, self_test: bool) -> Iterator[Finding]:
    """All of them, as they are found."""
    settings, finding = _settings()
    yield finding
    for check in _checks(registry, self_test):
        yield from check(settings)


def secure() -> Iterator[Finding]:
    """Those of ``--security``."""
    from clip_runc.cli.checks import security

    settings, finding = _settings()
    if finding.level:
        yield finding
    yield from security.check(settings)


def _settings() -> tuple[Settings, Finding]:
    """The settings, or the defaults where they cannot be used."""
    try:
        return load(), Finding(OK, "configuration", "can be used")
    except ConfigError as error:
        return Settings(), Finding(FAIL, "configuration", error.message, error.hint)


def _checks(registry: str | None, self_test: bool) -> list[Callable[[Settings], list[Finding]]]:
    from clip_runc.cli.checks import engines, kernel, running, runtime, storage
    from clip_runc.cli.checks import registry as registries
    from clip_runc.cli.checks import self_test as whole

    chosen: list[Callable[[Settings], list[Finding]]]
    chosen = [kernel.check, runtime.check, storage.check, engines.check, running.check]
    if registry is not None:
        chosen.append(lambda settings: registries.check(settings, registry))
    return [*chosen, whole.check] if self_test else chosen
