"""``clipctl import``: from an index of the Go library to a real one."""

from __future__ import annotations

import click

from clip_runc.cli.console import emit_json, layer_progress, size
from clip_runc.config import load


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="Write the index here (default: only into this machine's index store).",
)
@click.option("--no-store", is_flag=True, help="Do not keep the index in the index store.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(file: str, output: str | None, no_store: bool, as_json: bool) -> None:
    """Index the image that FILE, a .clip of the Go library (Beta9), was made from.

    Such a file lacks what is needed to read an image lazily and to verify it. So its image
    reference and platform are read, and the index is made from the image's registry.
    """
    from clip_runc.images.importing import import_clip

    if no_store and not output:
        raise click.UsageError("--no-store needs -o FILE: the index would be kept nowhere")
    with layer_progress(quiet=as_json) as progress:
        result = import_clip(load(), file, output, store=not no_store, progress=progress)
    if as_json:
        emit_json(result.as_dict())
        return
    for warning in result.warnings:
        click.echo(f"! {warning}", err=True)
    click.echo(f"{file} is of {result.reference}, {result.platform}, {result.layers} layers")
    click.echo(f"index {size(result.size)}: {result.path}")
