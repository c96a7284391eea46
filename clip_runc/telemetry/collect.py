"""The metrics of this machine: what clipd says of itself, the events, the containers.

Names follow https://prometheus.io/docs/practices/naming/: a prefix, base units, ``_total`` for what
only grows.  Counters of clipd begin anew with its server; ``rate()`` knows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from clip_runc import __version__
from clip_runc.config import Settings
from clip_runc.containers.state import list_states
from clip_runc.errors import ClipError
from clip_runc.fs.client import Client
from clip_runc.store.stats import BOUNDS
from clip_runc.telemetry import starts
from clip_runc.telemetry.exposition import Family, text
from clip_runc.telemetry.starts import Starts
from clip_runc.telemetry.tail import Tail

Status = dict[str, Any]
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class Collector:
    """Collects again and again: events are read once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tail = Tail(settings.events_file)
        self._starts = Starts()

    def text(self) -> str:
        """All metrics now."""
        self._starts.add(self._tail.new())
        return text(families(self._settings, status(self._settings), self._starts))


def status(settings: Settings) -> Status | None:
    """What clipd says of itself; None where it does not run or does not answer."""
    try:
        with Client.connect(settings) as client:
            return client.status()
    except ClipError:
        return None


def families(settings: Settings, found: Status | None, seen: Starts) -> Iterator[Family]:
    """Every metric; those of clipd only where it answers."""
    build = Family("clip_runc_build_info", "gauge", "The version that made these metrics.")
    yield build.add(1, version=__version__)
    up = Family("clip_runc_up", "gauge", "Whether clipd answers.")
    yield up.add(0 if found is None else 1)
    yield from _events(settings, seen)
    if found is not None:
        yield from _processes(found)
        yield from _images(found)
        yield from _store(_table(found, "store"))
        yield from _background(_table(found, "background"))


def _events(settings: Settings, seen: Starts) -> Iterator[Family]:
    containers = Family("clip_runc_containers", "gauge", "Containers on an index, by layer mode.")
    modes = Counter(state.mode for state in list_states(settings))
    for mode in ("erofs", "loop", "tree"):
        containers.add(modes[mode], mode=mode)
    yield containers
    counted = Family("clip_runc_events_total", "counter", "Events by kind (clipctl events).")
    for name, count in sorted(seen.events.items()):
        counted.add(count, event=name)
    yield counted
    begun = Family("clip_runc_starts_total", "counter", "Containers started, by layer mode.")
    for mode, count in sorted(seen.modes.items()):
        begun.add(count, mode=mode)
    yield begun
    spent = Family(
        "clip_runc_start_phase_seconds", "histogram", "Time of container starts, by phase."
    )
    for phase, counts in seen.counts.items():
        spent.histogram(starts.BOUNDS, counts, seen.seconds[phase], phase=phase)
    yield spent


def _processes(found: Status) -> Iterator[Family]:
    server = _table(found, "server")
    restarts = Family("clip_runc_server_restarts_total", "counter", "Servers started anew.")
    yield restarts.add(_count(server, "restarts"))
    serving = Family("clip_runc_server_serving", "gauge", "Whether a server answers reads.")
    yield serving.add(server.get("state") == "serving")
    memory = Family(
        "clip_runc_process_resident_memory_bytes", "gauge", "Resident memory of clipd's processes."
    )
    cpu = Family("clip_runc_process_cpu_seconds_total", "counter", "CPU time of them.")
    for name in ("supervisor", "keeper", "server"):
        usage = process(_count(_table(found, name), "pid"))
        if usage is not None:
            memory.add(usage[0], process=name)
            cpu.add(usage[1], process=name)
    yield memory
    yield cpu


def process(pid: int) -> tuple[int, float] | None:
    """Resident bytes and seconds of CPU of a process; None where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[21]) * _PAGE, (int(fields[11]) + int(fields[12])) / _TICKS


def _images(found: Status) -> Iterator[Family]:
    images = [one for one in found.get("images", []) if isinstance(one, dict)]
    yield Family("clip_runc_images", "gauge", "Images that are served.").add(len(images))
    layers = {
        str(layer.get("diff")): bool(layer.get("complete"))
        for image in images
        for layer in image.get("layers", [])
    }
    by_state = Family("clip_runc_layers", "gauge", "Layers that are served, each counted once.")
    complete = sum(layers.values())
    by_state.add(complete, state="complete").add(len(layers) - complete, state="lazy")
    yield by_state


def _store(store: Status) -> Iterator[Family]:
    reads = Family("clip_runc_reads_total", "counter", "Reads of layer data, by what became of it.")
    for name, key in (("hit", "hits"), ("wait", "waits"), ("error", "failures")):
        reads.add(_count(store, key), result=name)
    yield reads
    for prefix, what in (
        ("wait", "Time that reads waited for data that was not there."),
        ("fetch", "Time of range requests to registries."),
    ):
        counts = store.get(f"{prefix}_counts")
        if isinstance(counts, list) and len(counts) == len(BOUNDS) + 1:
            name = "clip_runc_read_wait_seconds" if prefix == "wait" else "clip_runc_fetch_seconds"
            total = float(store.get(f"{prefix}_seconds", 0.0))
            yield Family(name, "histogram", what).histogram(BOUNDS, counts, total)
    for name, key, what in (
        ("fetched_bytes", "fetched_bytes", "Compressed bytes that came from registries."),
        ("fetches", "requests", "Requests to registries that were answered."),
        ("fetch_retries", "retries", "Fetches that were repeated."),
        ("chunks_fetched", "chunks", "Chunks that were fetched and verified."),
        ("chunks_found", "checked", "Chunks found on disk after a boot, and verified."),
        ("verify_failures", "verify_failures", "Fetched chunks with other bytes than the index."),
        ("store_errors", "store_errors", "Chunks that could not be stored."),
    ):
        yield Family(f"clip_runc_{name}_total", "counter", what).add(_count(store, key))
    size = Family("clip_runc_store_bytes", "gauge", "Fetched layer data on disk.")
    yield size.add(_count(store, "used_bytes"))
    limit = Family("clip_runc_store_limit_bytes", "gauge", "The limit of it; 0 is none.")
    yield limit.add(_count(store, "limit_bytes"))


def _background(background: Status) -> Iterator[Family]:
    running = Family("clip_runc_background_images", "gauge", "Images being completed now: 0 or 1.")
    yield running.add(bool(background.get("image")))
    name = "clip_runc_background_bytes_total"
    asked = Family(name, "counter", "Compressed bytes asked for to complete images.")
    yield asked.add(_count(background, "bytes"))


def _table(value: Status, key: str) -> Status:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def _count(value: Status, key: str) -> int:
    number = value.get(key)
    return number if isinstance(number, int) else 0
