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
from clip_runc.cli.setup.changes import removals
from clip_runc.runtime.hook import NAME as HOOK


@click.command("uninstall")
@place_options
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
def command(bin_dir: str, root: str, dry_run: bool) -> None:
    """Remove the executables, units and engine configuration that install wrote; nothing else.

    Indexes and fetched data stay in the state directory, and containers that run keep running.
    """
    directory, root = absolute(bin_dir), absolute(root) if root else ""
    engines = [*containerd.uninstall(root), *podman.uninstall(root), *docker.uninstall(root)]
    engines += [*systemd.uninstall(root), *shell.uninstall(root)]
    programs = [launcher_path(directory), f"{directory}/{HOOK}", f"{directory}/runc"]
    if directory == packaged.bin_dir():
        programs = []  # the package manager's to remove
    show(engines)
    # Engines first: none of them must be left with a runtime that is gone.
    count = apply([*engines, *removals(programs, root)], dry_run=dry_run)
    link = None if root else clipctl_link(directory)
    if link and Path(link[0]).is_symlink() and os.readlink(link[0]) == link[1]:
        count += 1
        if not dry_run:
            Path(link[0]).unlink()
        click.echo(f"{'would remove' if dry_run else 'removed'} {link[0]}")
    if not count:
        click.echo(f"nothing of ours in {root}{directory}")
