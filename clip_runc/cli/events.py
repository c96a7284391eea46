"""``clipctl events``: what happened, and what happens now."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import click

from clip_runc.config import load

_PAUSE = 0.25


@click.command("events")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.option("--container", metavar="ID", help="Only those of a container.")
@click.option("--kind", multiple=True, metavar="EVENT", help="Only these; may be repeated.")
def command(follow: bool, as_json: bool, container: str | None, kind: tuple[str, ...]) -> None:
    """Print events since boot: containers started and removed, clipd, its server, images.

    The last 4 to 8 MB of them are kept.
    """
    from clip_runc.telemetry.tail import Tail

    tail = Tail(load().events_file)
    while True:
        for event in tail.new():
            if kind and event["event"] not in kind:
                continue
            if container and event.get("container") != container:
                continue
            click.echo(json.dumps(event) if as_json else line(event))
        if not follow:
            return
        time.sleep(_PAUSE)


def line(event: dict[str, Any]) -> str:
    """An event for people: local time, kind, and its fields, the text of a log line last."""
    fields = {k: v for k, v in event.items() if k not in ("time", "event", "text")}
    words = [f"{name}={_word(value)}" for name, value in fields.items()]
    return "  ".join([_local(event.get("time")), f"{event['event']:<18}", " ".join(words)]).rstrip()


def _word(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if text.isprintable() and text and " " not in text else json.dumps(text)


def _local(stamp: object) -> str:
    try:
        return f"{datetime.fromisoformat(str(stamp)).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return str(stamp)
