"""``clipctl index``: one pass over an image in its registry, and an index is there."""

from __future__ import annotations

import click

from clip_runc.cli.console import emit_json, layer_progress, size
from clip_runc.config import load


@click.command("index")
@click.argument("reference")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="Write the index here (default: only into this machine's index store).",
)
@click.option("--platform", help="os/arch[/variant] of an image index; default: this machine's.")
@click.option(
    "--checkpoint-mib",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Compressed MiB between two places where a gzip layer can be entered.",
)
@click.option(
    "--published/--full",
    default=False,
    help="Fetch only the tables of contents that others published (eStargz, zstd:chunked, SOCI), "
    "or every layer (the default).",
)
@click.option("--no-store", is_flag=True, help="Do not keep the index in the index store.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    reference: str,
    output: str | None,
    platform: str | None,
    checkpoint_mib: int,
    published: bool,
    no_store: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make an index of the image REFERENCE, straight from its registry.

    Nothing is unpacked and no local copy of the image is made. Without -o the index goes into
    the store that clip-runc looks into; with -o it is written to a file as well.

    With --published an image whose layers carry tables of contents is indexed by these, in a few
    requests; the digests of its files and chunks are believed as the manifest names that of the
    table. A SOCI index that only refers to the image is believed where trusted_registries has its
    repository. Layers without a table are read whole, and that is said.
    """
    from clip_runc.images.make import index_image

    if no_store and not output:
        raise click.UsageError("--no-store needs -o FILE: the index would be kept nowhere")
    with layer_progress(quiet=quiet or as_json) as progress:
        result = index_image(
            load(),
            reference,
            output,
            platform=platform,
            checkpoint_mib=checkpoint_mib,
            store=not no_store,
            published=published,
            progress=progress,
        )
    if as_json:
        emit_json(result.as_dict())
        return
    for warning in result.warnings:
        click.echo(f"! {warning}", err=True)
    click.echo(
        f"{result.reference}: {result.layers} layers, {size(result.compressed)} compressed, "
        f"{size(result.raw)} inside; fetched {size(result.fetched)} in {result.seconds:.1f} s"
    )
    click.echo(f"index {size(result.size)}: {result.path}")
