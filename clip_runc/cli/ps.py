"""``clipctl ps``: the containers that run from an index."""

from __future__ import annotations

import click

from clip_runc.cli.console import emit_json, size, table
from clip_runc.config import load

HEADERS = ("id", "image", "mode", "lazy", "written", "fetched", "bundle")


@click.command("ps")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def command(as_json: bool) -> None:
    """List containers: id, image, layer mode, what is not on this machine yet, what they wrote.

    Lazy is the share of the image that was not fetched so far; fetched are the compressed bytes
    that came for its layers since clipd's server runs. Containers of one image share both. "-" is
    what clipd does not say: it does not run, or the image is complete and detached.
    """
    from clip_runc.telemetry.collect import status
    from clip_runc.telemetry.containers import views

    settings = load()
    found = views(settings, status(settings))
    if as_json:
        emit_json([one.as_dict() for one in found])
        return
    table(
        [
            (
                one.state.id or one.state.key,
                one.reference or one.state.image[:12],
                one.state.mode,
                share(one.lazy),
                amount(one.upper),
                amount(one.fetched),
                one.state.bundle or "-",
            )
            for one in found
        ],
        HEADERS,
    )


def share(value: float | None) -> str:
    """A share for people."""
    return "-" if value is None else f"{value:.0%}"


def amount(value: int | None) -> str:
    """Bytes for people."""
    return "-" if value is None else size(value)
