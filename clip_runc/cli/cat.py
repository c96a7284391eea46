"""``clipctl cat``: a file of an image, fetched and verified, without a mount."""

from __future__ import annotations

import os
import sys

import click

from clip_runc.cli.opening import open_index
from clip_runc.config import load


@click.command("cat")
@click.argument("index")
@click.argument("path")
def command(index: str, path: str) -> None:
    """Print PATH of INDEX (a .clip file, or a reference that is indexed here)."""
    from clip_runc.images.content import stream_file
    from clip_runc.images.source import access_of

    settings = load()
    clip = open_index(settings, index)
    sys.stdout.flush()
    stream_file(
        clip,
        access_of(settings, clip),
        os.fsencode(path),
        sys.stdout.fileno(),
        uid=settings.server_uid,
    )
