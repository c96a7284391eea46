"""``clipctl ps``: the containers that run from an index."""

from __future__ import annotations

from collections.abc import Mapping

import click

from clip_runc.cli.console import emit_json, size, table
from clip_runc.config import load

HEADERS = (
    "id", "image", "source", "mode", "layers", "lazy", "written", "fetched", "start", "bundle"
)  # fmt: skip


@click.command("ps")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def command(as_json: bool) -> None:
    """List containers: id, image, layer mode, what is not on this machine yet, what they wrote.

    Source says how the image was found, layers how many of it were on this machine when it was
    mounted, start what its phases took. Lazy is the share of the image that was not fetched so far,
    "fetching" where clipd fetches it in the background; fetched are the compressed bytes that came
    for its layers since clipd's server runs. Containers of one image share both. "-" is what
    clipd does not say: it does not run, or the image is complete and detached.
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
                one.state.start.get("source", "-"),
                one.state.mode,
                one.state.start.get("layers", "-"),
                share(one.lazy) + (", fetching" if one.completing else ""),
                amount(one.upper),
                amount(one.fetched),
                phases(one.state.start),
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


def phases(start: Mapping[str, str]) -> str:
    """What each phase of a start took, for people."""
    names = [name for name in start if name.endswith("_ms")]
    words = [f"{name.removesuffix('_ms')} {start[name]}" for name in names]
    return f"{', '.join(words)} ms" if words else "-"
