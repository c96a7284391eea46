"""``clipctl images``: the indexes on this machine."""

from __future__ import annotations

import os

import click

from clip_runc.cli.console import emit_json, size, table
from clip_runc.config import load


@click.command("images")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def command(as_json: bool) -> None:
    """List the indexes in this machine's index store, with the references they answer to."""
    from clip_runc.images.local import list_images

    rows = [
        {
            "digest": f"sha256:{image.manifest_hex}",
            "references": sorted(references),
            "size": os.path.getsize(image.index_path),
        }
        for image, references in list_images(load())
    ]
    if as_json:
        emit_json(rows)
        return
    table(
        [
            (str(row["digest"])[7:19], size(int(str(row["size"]))), reference)
            for row in rows
            for reference in (row["references"] or ["-"])  # type: ignore[attr-defined]  # a list here
        ],
        ("digest", "index", "reference"),
    )
