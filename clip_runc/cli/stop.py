"""``clipctl stop``: end clipd and unmount its filesystem."""

from __future__ import annotations

import click

from clip_runc.config import load


@click.command("stop")
def command() -> None:
    """Stop clipd.  Containers whose layers are not complete on disk can no longer read."""
    from clip_runc.fs.client import connect_or_wait

    client = connect_or_wait(load())
    if client is None:
        click.echo("clipd is not running")
        return
    with client:
        client.stop()
