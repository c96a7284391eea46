"""``clipctl pull``: the index that somebody pushed beside an image."""

from __future__ import annotations

import click

from clip_runc.cli.console import emit_json, size
from clip_runc.config import load


@click.command("pull")
@click.argument("reference")
@click.option("--platform", help="os/arch[/variant] of an image index; default: this machine's.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(reference: str, platform: str | None, as_json: bool) -> None:
    """Fetch an index of the image REFERENCE that lies beside it in its registry.

    Only the index is fetched. It is checked as a whole; yet what it says of the files' bytes is
    its maker's word: pull from repositories whose writers you trust.
    """
    from clip_runc.images.artifact import pull_index

    done = pull_index(load(), reference, platform=platform)
    if as_json:
        emit_json(done.as_dict())
        return
    click.echo(f"{done.reference}: index of {done.platform}, {size(done.size)}: {done.path}")
    click.echo(f"artifact {done.artifact} ({done.why})")
