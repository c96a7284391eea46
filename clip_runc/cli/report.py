"""``clipctl report``: why a start took as long as it did."""

from __future__ import annotations

from pathlib import Path

import click

from clip_runc.cli.console import emit_json
from clip_runc.config import load
from clip_runc.errors import ClipError


@click.command("report")
@click.argument("container")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write one page with the picture here; it needs neither network nor scripts.",
)
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="How long after the start to look.",
)
@click.option(
    "--otlp",
    metavar="URL",
    help="Send it as an OpenTelemetry trace to this collector (needs the extra otel).",
)
def command(
    container: str, html: Path | None, as_json: bool, seconds: float, otlp: str | None
) -> None:
    """Show the last start of CONTAINER as a waterfall.

    Its phases, each read that waited and for what file, the ranges that were fetched, bytes wanted
    against bytes fetched, and what was served at once. clipd sees what containers of one image
    read, not which of them it was; it forgets an image some time after its last container has
    gone (image_linger).
    """
    from clip_runc.telemetry.reports import report

    found = report(load(), container, seconds)
    if html is not None:
        from clip_runc.telemetry.waterfall_html import page

        try:
            html.write_text(page(found), encoding="utf-8")
        except OSError as error:
            raise ClipError(f"{html}: {error.strerror}", "choose another file") from None
    if otlp is not None:
        from clip_runc.telemetry.otlp import Collector

        click.echo(f"{Collector(otlp).send(found)} spans sent", err=True)
    if as_json:
        emit_json(found.as_dict())
    elif html is None and otlp is None:
        from clip_runc.telemetry.waterfall_text import lines

        for line in lines(found):
            click.echo(line)
