"""``clipctl uninstall``: take away what ``clipctl install`` wrote."""

from __future__ import annotations

import os
from pathlib import Path

import click

from clip_runc.cli.install import (
    absolute,
    apply,
    clipctl_link,
    launcher_path,
    place_options,
    show,
)
from clip_runc.cli.setup import containerd, docker, packaged, podman, shell, systemd
from clip_runc.cli.setup.changes import Change, removals
from clip_runc.config import load
from clip_runc.containers import leases
from clip_runc.fs.client import connect_or_wait
from clip_runc.runtime.hook import NAME as HOOK


@click.command("uninstall")
@place_options
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
def command(bin_dir: str, root: str, dry_run: bool) -> None:
    """Remove the executables, units and engine configuration that install wrote; nothing else.

    clipd ends and its mounts go, unless containers read through it: then it and its units stay, and
    the containers go on. Indexes and fetched data stay in the state directory.
    """
    directory, root = absolute(bin_dir), absolute(root) if root else ""
    readers = 0 if root else len(leases.users(load()))
    engines = [*containerd.uninstall(root), *podman.uninstall(root), *docker.uninstall(root)]
    units = systemd.uninstall(root, serving=readers > 0)
    programs = [launcher_path(directory), f"{directory}/{HOOK}", f"{directory}/runc"]
    if directory == packaged.bin_dir():
        programs = []  # the package manager's to remove
    show([*engines, *units])
    # Engines first: none of them must be left with a runtime that is gone.  Then clipd, as nobody
    # starts it again.
    first = [*engines, *shell.uninstall(root), *removals(programs, root)]
    count = apply(first, dry_run=dry_run)
    if not root:
        _end_clipd(units, readers, dry_run=dry_run)
    count += apply(units, dry_run=dry_run)
    if units and not root and not dry_run:
        systemd.forget()
    link = None if root else clipctl_link(directory)
    if link and Path(link[0]).is_symlink() and os.readlink(link[0]) == link[1]:
        count += 1
        if not dry_run:
            Path(link[0]).unlink()
        click.echo(f"{'would remove' if dry_run else 'removed'} {link[0]}")
    if not count:
        click.echo(f"nothing of ours in {root}{directory}")


def _end_clipd(units: list[Change], readers: int, *, dry_run: bool) -> None:
    """Stop what serves, whoever started it, unless somebody reads."""
    if readers:
        click.echo(f"clipd stays: {readers} containers read through it; once they are gone, again")
    if dry_run:
        return
    systemd.stop(units)
    clipd = None if readers else connect_or_wait(load())
    if clipd is not None:
        with clipd:
            clipd.stop()
        click.echo("stopped clipd")
