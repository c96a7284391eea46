"""``clipctl traces``: every start as an OpenTelemetry trace."""

from __future__ import annotations

import time

import click

from clip_runc.config import load
from clip_runc.errors import ClipError

_PAUSE = 0.5


@click.command("traces")
@click.option(
    "--otlp",
    metavar="URL",
    envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
    required=True,
    help="The collector, by HTTP with protobuf: http://localhost:4318.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="How long after a start to look; then it is sent.",
)
def command(otlp: str, seconds: float) -> None:
    """Send each start from now on to a collector, until this is ended.

    A trace has what clipctl report shows: the phases, each read that waited, each fetch. It is
    made from what clipd notes anyhow; no start waits for it. A collector that is away costs the
    traces of that time. Needs the extra otel: pip install 'clip-runc[otel]'.
    """
    from clip_runc.telemetry.otlp import Collector
    from clip_runc.telemetry.reports import report_of
    from clip_runc.telemetry.starts import STARTED
    from clip_runc.telemetry.tail import Event, Tail, moment

    settings, collector = load(), Collector(otlp)
    tail = Tail(settings.events_file)
    tail.new()
    pending: list[tuple[float, Event]] = []
    click.echo(f"starts are sent to {otlp}", err=True)
    while True:
        pending += [
            (moment(event.get("time")) + seconds, event)
            for event in tail.new()
            if event["event"] == STARTED
        ]
        now = time.time()
        due = [event for at, event in pending if at <= now]
        pending = [one for one in pending if one[0] > now]
        for event in due:
            name = event.get("container")
            try:
                count = collector.send(report_of(settings, event, seconds))
            except ClipError as error:
                click.echo(f"{name}: {error}", err=True)
            else:
                click.echo(f"{name}: {count} spans sent", err=True)
        time.sleep(_PAUSE)
