"""``clipctl install``: the runtime binary, its hook, clipctl in PATH, and what engines need."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from clip_runc.cli.setup import containerd, docker, kubernetes, packaged, podman, shell, systemd
from clip_runc.cli.setup.changes import Change, own_file
from clip_runc.config import load
from clip_runc.errors import ConfigError
from clip_runc.runtime import launcher
from clip_runc.runtime.hook import NAME as HOOK
from clip_runc.runtime.locate import RuntimeNotFound, find_runtime

DEFAULT_DIRECTORY = packaged.bin_dir() or "/usr/local/bin"


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--bin-dir`` and ``--root``, the same for install and uninstall."""
    root = click.option(
        "--root",
        type=click.Path(file_okay=False),
        default="",
        help="Stands before every path that is read or written: an image's root, or a test's.",
    )
    directory = click.option(
        "--bin-dir",
        type=click.Path(file_okay=False),
        default=DEFAULT_DIRECTORY,
        show_default=True,
        help="Where the executables go.",
    )
    return directory(root(function))


@click.command("install")
@place_options
@click.option("--runtime", default="", help="The real runtime, a path or a name [default: runc].")
@click.option("--as-runc", is_flag=True, help="Also take the name runc; the real one is called.")
@click.option(
    "--systemd", "with_systemd", is_flag=True, help="Units: clipd and its socket, a timer for gc."
)
@click.option("--containerd", "with_containerd", is_flag=True, help="A handler in containerd.")
@click.option("--podman", "with_podman", is_flag=True, help="A runtime that podman knows by name.")
@click.option("--docker", "with_docker", is_flag=True, help="A runtime that Docker knows by name.")
@click.option("--docs", "with_docs", is_flag=True, help="Shell completions and man pages.")
@click.option(
    "--all", "everything", is_flag=True, help="Units, docs, and each engine that is found here."
)
@click.option(
    "--kubernetes",
    "with_kubernetes",
    is_flag=True,
    help="Print a RuntimeClass and a DaemonSet, and write nothing.",
)
@click.option("--image", default=kubernetes.IMAGE, help="The image of that DaemonSet.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
def command(
    bin_dir: str,
    root: str,
    runtime: str,
    as_runc: bool,
    with_systemd: bool,
    with_containerd: bool,
    with_podman: bool,
    with_docker: bool,
    with_docs: bool,
    everything: bool,
    with_kubernetes: bool,
    image: str,
    dry_run: bool,
) -> None:
    """Write the clip-runc launcher, the poststop hook beside it, and a link to clipctl.

    The launcher names this interpreter and this package, so that a command which passes through
    costs no more than the interpreter's bare start. Files of others are changed only where asked
    for; each change is shown as a diff before it is made. Safe to run again.
    """
    if with_kubernetes:
        click.echo(kubernetes.manifest(image), nl=False)
        return
    directory, root = absolute(bin_dir), absolute(root) if root else ""
    binary = launcher_path(directory)
    programs = launchers(directory, root, runtime, as_runc=as_runc)
    asked = {
        "systemd": with_systemd or everything,
        "containerd": with_containerd or (everything and _is_here("containerd")),
        "podman": with_podman or (everything and _is_here("podman")),
        "docker": with_docker or (everything and _is_here("dockerd")),
        "docs": with_docs or everything,
    }
    others, hints = _others({name for name, wanted in asked.items() if wanted}, binary, root)
    show([change for change in others if change.needed()])
    apply([*programs, *others], dry_run=dry_run)
    if not root:
        link = clipctl_link(directory)
        if link:
            if not dry_run:
                _link(*link)
            click.echo(f"{'would write' if dry_run else 'wrote'} {link[0]}")
        if not dry_run:
            launcher.compile_package()
    for hint in hints:
        click.echo(f"next: {hint}")


def _others(asked: set[str], binary: str, root: str) -> tuple[list[Change], list[str]]:
    """Changes beside the executables, and what to do when they are made."""
    changes: list[Change] = []
    hints: list[str] = []
    if "systemd" in asked and not packaged.bin_dir():
        changes += systemd.install(load(), root)
        hints.append(systemd.NEXT)
    for name, engine in (("containerd", containerd), ("podman", podman), ("docker", docker)):
        if name in asked:
            changes.append(engine.install(binary, root))
            hints.append(engine.NEXT)
    if "docs" in asked and not packaged.bin_dir():
        changes += shell.install(root)
    return changes, hints


def _is_here(program: str) -> bool:
    """In PATH, or where services find it and users do not."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def absolute(path: str) -> str:
    """An absolute path in which no symlink is resolved."""
    return os.path.abspath(path)  # noqa: PTH100  # Path.resolve() would


def launchers(directory: str, root: str, runtime: str, *, as_runc: bool) -> list[Change]:
    """The executables, but for those that came in a package of the distribution.

    Raises ``ConfigError`` where somebody else's are in the way.
    """
    texts = {}
    if directory != packaged.bin_dir():
        texts = {
            launcher_path(directory): launcher.launcher_text(real_runtime=runtime),
            f"{directory}/{HOOK}": launcher.launcher_text(launcher.POSTSTOP),
        }
    if as_runc:
        if directory == packaged.bin_dir():
            raise ConfigError(
                f"{directory}/runc belongs to another package",
                "give --bin-dir a directory that comes before it in PATH, /usr/local/sbin say",
            )
        # An absolute path: the launcher must never find itself under the name it took.
        real = runtime if "/" in runtime else _real_runtime(runtime, f"{root}{directory}/runc")
        texts[f"{directory}/runc"] = launcher.launcher_text(real_runtime=real)
    return [own_file(path, text.decode(), root, 0o755) for path, text in texts.items()]


def _real_runtime(name: str, taken: str) -> str:
    try:
        return find_runtime(name, [taken])
    except RuntimeNotFound as error:
        raise ConfigError(str(error), "install runc, or name one with --runtime") from None


def show(changes: list[Change]) -> None:
    """Print the diffs."""
    for change in changes:
        click.echo(change.diff())


def apply(changes: list[Change], *, dry_run: bool = False) -> int:
    """Make the changes that are needed, a line for each; how many there were."""
    needed = [change for change in changes if change.needed()]
    for change in changes:
        if change not in needed:
            click.echo(f"unchanged {change.place}")
            continue
        if not dry_run:
            change.make()
        verb = ("remove" if dry_run else "removed") if change.text is None else (
            "write" if dry_run else "wrote"
        )  # fmt: skip
        click.echo(f"{'would ' if dry_run else ''}{verb} {change.place}")
    return len(needed)


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
