"""``clipctl gc``: what containers that are gone left behind."""

from __future__ import annotations

import click

from clip_runc.config import load


@click.command("gc")
def command() -> None:
    """Tear down containers that their runtime no longer knows, and image mounts without users."""
    from clip_runc.containers.gc import gc

    removed = gc(load())
    for line in removed:
        click.echo(line)
    if not removed:
        click.echo("nothing to do")
