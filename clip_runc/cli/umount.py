"""``clipctl umount``: undo ``clipctl mount``."""

from __future__ import annotations

import click

from clip_runc.config import load


@click.command("umount")
@click.argument("directory", type=click.Path(file_okay=False))
def command(directory: str) -> None:
    """Unmount what ``clipctl mount`` mounted at DIRECTORY."""
    from clip_runc.containers.host_mount import unmount_at

    unmount_at(load(), directory)
