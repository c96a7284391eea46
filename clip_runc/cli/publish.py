"""``clipctl publish``: a stub image, which any container engine pulls."""

from __future__ import annotations

import click

from clip_runc.cli.console import emit_json, layer_progress, size
from clip_runc.config import load


@click.command("publish")
@click.argument("source")
@click.argument("destination")
@click.option(
    "--platform",
    "wanted",
    multiple=True,
    help="os/arch[/variant], may be repeated; default: all that SOURCE has.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(source: str, destination: str, wanted: tuple[str, ...], as_json: bool) -> None:
    """Push a stub of the image SOURCE as DESTINATION.

    The stub has SOURCE's config and one small layer with its index. A container engine pulls it
    as any image; started with clip-runc the container sees SOURCE, whose layers are read from
    SOURCE's repository when they are wanted.
    """
    from clip_runc.images.publish import publish

    with layer_progress(quiet=as_json) as progress:
        done = publish(load(), source, destination, wanted=wanted, progress=progress)
    if as_json:
        emit_json(done.as_dict())
        return
    for one in done.stubs:
        click.echo(f"{one.platform}: stub {size(one.size)}, image {size(one.source_size)}")
    click.echo(f"{done.destination}@{done.digest} starts {done.source}")
