"""``clipctl push``: an index beside its image in the registry."""

from __future__ import annotations

import click

from clip_runc.cli.console import emit_json, layer_progress, size
from clip_runc.config import load


@click.command("push")
@click.argument("reference")
@click.option("--index", type=click.Path(dir_okay=False), help="A .clip file to push.")
@click.option("--platform", help="os/arch[/variant] of an image index; default: this machine's.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(reference: str, index: str | None, platform: str | None, as_json: bool) -> None:
    """Store the index of the image REFERENCE in its registry, as an artifact that refers to it.

    The index is this machine's, made now where there is none. Others fetch it with clipctl pull,
    or without a word where trusted_registries in their configuration names the registry.
    """
    from clip_runc.images.artifact import index_beside, local_index, push_index
    from clip_runc.images.make import index_image

    settings = load()
    image = index_beside(settings, reference, platform)
    path = index or local_index(settings, image)
    if path is None:
        with layer_progress(quiet=as_json) as progress:
            exact = str(image.reference.with_digest(image.manifest_digest))
            path = index_image(settings, exact, platform=platform, progress=progress).path
    done = push_index(settings, image, path)
    image.registry.close()
    if as_json:
        emit_json(done.as_dict())
        return
    state = "pushed" if done.new else "was there already"
    click.echo(f"{done.reference}: index of {done.platform}, {size(done.size)}, {state}")
    if done.new and not done.api:
        click.echo(f"listed under the tag {done.subject.replace(':', '-')} (no referrers API)")
    click.echo(f"artifact {done.artifact} refers to {done.subject}")
