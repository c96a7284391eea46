"""What the events say in numbers: starts by phase, events by kind."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from clip_runc.telemetry.tail import Event

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
"""Seconds."""
STARTED = "container-started"


class Starts:
    """Sums over all events that were added."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.modes: Counter[str] = Counter()
        self.counts: dict[str, list[int]] = {}
        self.seconds: dict[str, float] = {}

    def add(self, events: Iterable[Event]) -> None:
        """Count them."""
        for event in events:
            self.events[event["event"]] += 1
            if event["event"] == STARTED:
                self.modes[str(event.get("mode", ""))] += 1
                for phase, seconds in phases(event):
                    self._observe(phase, seconds)

    def _observe(self, phase: str, seconds: float) -> None:
        counts = self.counts.setdefault(phase, [0] * (len(BOUNDS) + 1))
        counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds


def phases(event: Event) -> list[tuple[str, float]]:
    """The phases of a start with their seconds, in their order."""
    return [
        (name.removesuffix("_ms"), value / 1000)
        for name, value in event.items()
        if name.endswith("_ms") and isinstance(value, (int, float))
    ]
