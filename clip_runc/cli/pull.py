"""``clipctl pull``: the index that somebody pushed beside an image."""

from __future__ import annotations

import click

from clip_runc.cli.console import emit_json, size
from clip_runc.config import load


@click.command("pull")
@click.argument("reference")
@click.option("--platform", help="os/arch[/variant] of an image index; default: this machine's.")
@click.option("--unsigned", is_flag=True, help="Take it without a signature by trusted_keys, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(reference: str, platform: str | None, unsigned: bool, as_json: bool) -> None:
    """Fetch an index of the image REFERENCE that lies beside it in its registry.

    Only the index is fetched. It is checked as a whole; yet what it says of the files' bytes is
    its maker's word. Where trusted_keys are configured one of them has to have signed it, but in
    trusted_registries; without keys, pull from repositories whose writers you trust.
    """
    from clip_runc.images.pull import pull_index

    settings = load()
    believe = unsigned or not settings.trusted_keys
    done = pull_index(settings, reference, platform=platform, believe=believe)
    if as_json:
        emit_json(done.as_dict())
        return
    click.echo(f"{done.reference}: index of {done.platform}, {size(done.size)}: {done.path}")
    signed = f"; signed by {done.signer}" if done.signer else ""
    click.echo(f"artifact {done.artifact} ({done.why}{signed})")
