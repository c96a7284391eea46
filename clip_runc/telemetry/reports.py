"""Where a waterfall comes from: the file of events, clipd, and the index."""

from __future__ import annotations

import time
from collections.abc import Callable

from clip_runc.config import Settings
from clip_runc.errors import ClipError, NotFound
from clip_runc.fs.client import Client
from clip_runc.images import local
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.erofs_check import check_erofs
from clip_runc.index.erofs_read import ErofsImage
from clip_runc.index.file_places import FilePlaces
from clip_runc.telemetry.starts import STARTED, phases
from clip_runc.telemetry.tail import Event, Tail, moment
from clip_runc.telemetry.waterfall import Traces, Waterfall, waterfall


def report(settings: Settings, container: str, seconds: float) -> Waterfall:
    """The last start of ``container``, and the ``seconds`` after it.

    Raises ``NotFound`` for one whose start is not in the file of events.
    """
    return report_of(settings, _start(settings, container), seconds)


def report_of(settings: Settings, event: Event, seconds: float) -> Waterfall:
    """The start that ``event`` tells of, and the ``seconds`` after it."""
    took = phases(event)
    # the event is written when the phases are over
    over = time.monotonic() - (time.time() - moment(event.get("time")))
    begin = over - sum(took_ for _, took_ in took)
    digits = str(event.get("digest", "")).removeprefix("sha256:")
    traces, sizes, path = _seen(settings, digits)
    return waterfall(
        event, took, traces, begin=begin, seconds=seconds, chunk_sizes=sizes, path=path
    )


def _start(settings: Settings, container: str) -> Event:
    tail = Tail(settings.events_file)
    found = [
        event
        for event in tail.new()
        if event["event"] == STARTED and event.get("container") == container
    ]
    tail.close()
    if not found:
        raise NotFound(
            f"{container}: no start of a container of that id since boot is known",
            "clipctl events --kind container-started lists them; the last 4 to 8 MB are kept",
        )
    return found[-1]


def _seen(
    settings: Settings, digits: str
) -> tuple[Traces | None, list[list[int]], Callable[[int, int], str]]:
    """What clipd has seen of the image, its chunks' sizes, and the names of its files."""

    def nameless(layer: int, offset: int) -> str:
        return ""

    if not local.is_hex(digits):
        return None, [], nameless
    try:
        with Client.connect(settings) as client:
            rows = [client.trace(digits, part) for part in Traces._fields]
        with ClipFile.open(local.at(settings, digits).index_path) as clip:
            sizes = [
                [chunk.comp_end - chunk.comp_start for chunk in layer.chunks]
                for layer in clip.layers
            ]
            data = clip.erofs()
            check_erofs(data, [layer.raw_size for layer in clip.layers])
    except (ClipError, OSError):
        return None, [], nameless
    places = FilePlaces(ErofsImage(data))

    def path(layer: int, offset: int) -> str:
        return places.path(layer, offset).decode("utf-8", "replace")

    return Traces(*rows), sizes, path
