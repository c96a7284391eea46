"""``clipctl status``: what serves layer data, and what it has served."""

from __future__ import annotations

from typing import Any

import click

from clip_runc.cli.console import emit_json, size
from clip_runc.config import load


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Everything clipd says, as JSON.")
def command(as_json: bool) -> int:
    """Show clipd: processes, mount, images, bytes fetched.  Exits with 3 when none runs."""
    from clip_runc.fs.client import connect

    client = connect(load())
    if client is None:
        if as_json:
            emit_json({"running": False})
        else:
            click.echo("clipd is not running; the first container starts it")
        return 3
    with client:
        status = client.status()
    if as_json:
        emit_json({"running": True, **status})
        return 0
    _show(status)
    return 0


def _show(status: dict[str, Any]) -> None:
    server = status["server"]
    click.echo(f"supervisor  pid {status['supervisor']['pid']}")
    click.echo(f"server      pid {server['pid']}, restarted {server['restarts']} times")
    keeper = status.get("keeper", {}).get("pid", 0)
    click.echo(
        f"held by     {f'keeper, pid {keeper}' if keeper else status.get('holder', 'nobody')}"
    )
    click.echo(f"fetched     {size(status.get('fetched', 0))}")
    background = status.get("background", {})
    if background.get("enabled"):
        what = str(background.get("image", ""))[:12] or "nothing now"
        click.echo(f"background  {what}, {size(int(background.get('bytes', 0)))} so far")
    for image in status.get("images", ()):
        lazy = sum(not layer["complete"] for layer in image["layers"])
        parts = f"{len(image['layers'])} layers, {lazy} of them lazy"
        click.echo(f"image       {image['manifest'][:12]} {image['source']}: {parts}")
