"""``clipctl install``: the runtime binary, its hook, and clipctl itself where PATH has them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from clip_runc.errors import ConfigError
from clip_runc.runtime import launcher
from clip_runc.runtime.hook import NAME as HOOK

DEFAULT_DIRECTORY = "/usr/local/bin"


def bin_dir_option() -> click.Option:
    """``--bin-dir``, the same for install and uninstall."""
    return click.Option(
        ["--bin-dir"],
        type=click.Path(file_okay=False),
        default=DEFAULT_DIRECTORY,
        show_default=True,
        help="Where the executables go.",
    )


@click.command("install")
@click.option("--runtime", default="", help="The real runtime, a path or a name [default: runc].")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
def command(bin_dir: str, runtime: str, dry_run: bool) -> None:
    """Write the clip-runc launcher, the poststop hook beside it, and a link to clipctl.

    The launcher names this interpreter and this package, so that a command which passes through
    costs no more than the interpreter's bare start. Safe to run again.
    """
    directory = os.path.abspath(bin_dir)  # noqa: PTH100  # no symlink may be resolved
    for name in (launcher_path(directory), f"{directory}/{HOOK}"):
        if os.path.lexists(name) and not launcher.is_launcher(name):
            raise ConfigError(
                f"{name} is there and was not written by clipctl install",
                "move it away, or choose another --bin-dir",
            )
    link = clipctl_link(directory)
    paths = [launcher_path(directory), f"{directory}/{HOOK}", *([link[0]] if link else [])]
    if not dry_run:
        launcher.install(directory, runtime)
        if link:
            _link(*link)
    for path in paths:
        click.echo(f"{'would write' if dry_run else 'wrote'} {path}")


command.params.insert(0, bin_dir_option())


def launcher_path(directory: str) -> str:
    """The runtime binary in ``directory``."""
    return f"{directory}/clip-runc"


def clipctl_link(directory: str) -> tuple[str, str] | None:
    """(link, target) for clipctl in ``directory``; None where it is there as a file of its own."""
    target = Path(sys.executable).parent / "clipctl"
    link = Path(directory) / "clipctl"
    if not target.exists() or target.parent == link.parent:
        return None
    return None if link.exists() and not link.is_symlink() else (str(link), str(target))


def _link(link: str, target: str) -> None:
    temporary = f"{link}.new"
    Path(temporary).unlink(missing_ok=True)
    Path(temporary).symlink_to(target)
    Path(temporary).replace(link)
