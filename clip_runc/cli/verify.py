"""``clipctl verify``: is this index sound, and can its layers be had?"""

from __future__ import annotations

import click

from clip_runc.cli.console import emit_json, layer_progress
from clip_runc.cli.opening import index_path
from clip_runc.config import Settings, load


@click.command("verify")
@click.argument("index")
@click.option("--offline", is_flag=True, help="Leave the registry alone.")
@click.option(
    "--deep", is_flag=True, help="Make the index again from the registry and compare the two."
)
@click.option(
    "--checkpoint-mib",
    type=click.IntRange(1, 64),
    help="With --deep: what the index was made with (default: what it looks like).",
)
@click.option("--json", "as_json", is_flag=True, help="The checks as a JSON array.")
def command(
    index: str, offline: bool, deep: bool, checkpoint_mib: int | None, as_json: bool
) -> int:
    """Check INDEX: structure, digests, what must not be empty, layers in the registry.

    Exits with 1 when a check fails.
    """
    from clip_runc.images.api import Check, verify

    if deep and offline:
        raise click.UsageError("--deep fetches every layer; it cannot be --offline")
    settings = load()
    path = index_path(settings, index)
    checks = verify(path, settings=settings, offline=offline)
    if deep and all(check.ok for check in checks):
        found = _differences(settings, path, checkpoint_mib, quiet=as_json)
        checks += [Check(False, f"made again, it differs: {line}") for line in found]
        if not found:
            checks.append(Check(True, "made again from the registry, it is the same"))
    if as_json:
        emit_json([{"ok": check.ok, "text": check.text} for check in checks])
    else:
        for check in checks:
            click.echo(f"{'✓' if check.ok else '✗'} {check.text}")
    return 0 if all(check.ok for check in checks) else 1


def _differences(
    settings: Settings, path: str, checkpoint_mib: int | None, *, quiet: bool
) -> list[str]:
    from clip_runc.images.rebuild import differences

    with layer_progress(quiet=quiet) as progress:
        return differences(settings, path, checkpoint_mib=checkpoint_mib, progress=progress)
