"""``clipctl uninstall``: take away what ``clipctl install`` wrote."""

from __future__ import annotations

import os
from pathlib import Path

import click

from clip_runc.cli.install import bin_dir_option, clipctl_link, launcher_path
from clip_runc.runtime import launcher
from clip_runc.runtime.hook import NAME as HOOK


@click.command("uninstall")
def command(bin_dir: str) -> None:
    """Remove the launcher, the hook and the link that install wrote; nothing else.

    Indexes and fetched data stay in the state directory, and containers that run keep running.
    """
    directory = os.path.abspath(bin_dir)  # noqa: PTH100  # no symlink may be resolved
    ours = [p for p in (launcher_path(directory), f"{directory}/{HOOK}") if launcher.is_launcher(p)]
    link = clipctl_link(directory)
    if link and Path(link[0]).is_symlink() and os.readlink(link[0]) == link[1]:
        ours.append(link[0])
    for path in ours:
        Path(path).unlink()
        click.echo(f"removed {path}")
    if not ours:
        click.echo(f"nothing of ours in {directory}")


command.params.insert(0, bin_dir_option())
