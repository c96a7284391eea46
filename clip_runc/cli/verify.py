"""``clipctl verify``: is this index sound, and can its layers be had?"""

from __future__ import annotations

import click

from clip_runc.cli.console import emit_json
from clip_runc.cli.opening import index_path
from clip_runc.config import load


@click.command("verify")
@click.argument("index")
@click.option("--offline", is_flag=True, help="Leave the registry alone.")
@click.option("--json", "as_json", is_flag=True, help="The checks as a JSON array.")
def command(index: str, offline: bool, as_json: bool) -> int:
    """Check INDEX: structure, digests, what must not be empty, layers in the registry.

    Exits with 1 when a check fails.
    """
    from clip_runc.images.api import verify

    settings = load()
    checks = verify(index_path(settings, index), settings=settings, offline=offline)
    if as_json:
        emit_json([{"ok": check.ok, "text": check.text} for check in checks])
    else:
        for check in checks:
            click.echo(f"{'✓' if check.ok else '✗'} {check.text}")
    return 0 if all(check.ok for check in checks) else 1
