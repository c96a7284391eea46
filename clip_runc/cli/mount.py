"""``clipctl mount``: look around in an image with the tools one knows."""

from __future__ import annotations

import click

from clip_runc.cli.opening import looks_like_file
from clip_runc.config import load
from clip_runc.errors import ImageNotIndexed
from clip_runc.images.local import LocalImage


@click.command("mount")
@click.argument("index")
@click.argument("directory", type=click.Path(file_okay=False))
def command(index: str, directory: str) -> None:
    """Mount INDEX (a .clip file, or a reference that is indexed here) read-only at DIRECTORY."""
    from clip_runc.containers.host_mount import mount_at
    from clip_runc.images.local import find

    settings = load()
    source: str | LocalImage = index
    if not looks_like_file(index):
        image = find(settings, index)
        if image is None:
            raise ImageNotIndexed(
                f"{index}: not indexed on this machine",
                f"make an index with: clipctl index {index}",
            )
        source = image
    mode = mount_at(settings, source, directory)
    click.echo(f"{directory}: mounted, layer mode {mode}")
