"""``clipctl ps``: the containers that run from an index."""

from __future__ import annotations

import click

from clip_runc.cli.console import emit_json, table
from clip_runc.config import load


@click.command("ps")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def command(as_json: bool) -> None:
    """List containers: id, image, layer mode, runtime root, rootfs."""
    from clip_runc.containers.state import list_states

    rows = [
        {
            "id": state.id,
            "key": state.key,
            "image": state.image,
            "mode": state.mode,
            "root": state.root,
            "bundle": state.bundle,
        }
        for state in list_states(load())
    ]
    if as_json:
        emit_json(rows)
        return
    table(
        [(r["id"], str(r["image"])[:12], r["mode"], r["root"], r["bundle"]) for r in rows],
        ("id", "image", "mode", "runtime root", "bundle"),
    )
