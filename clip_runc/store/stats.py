"""What the store did, in numbers."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field, fields

BOUNDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
"""Seconds: upper bounds of the histograms, beside infinity."""


def _empty() -> list[int]:
    return [0] * (len(BOUNDS) + 1)


@dataclass(slots=True)
class Stats:
    """Counters of a layer; they only grow.  Read without a lock."""

    fetched_bytes: int = 0
    """Compressed bytes that came over the wire."""
    requests: int = 0
    """Range requests and streams that were answered."""
    chunks: int = 0
    """Chunks that were fetched and verified."""
    checked: int = 0
    """Chunks found on disk whose hash was right."""
    hits: int = 0
    """Reads served at once.  Counted without the lock: one thread reads (the event loop's)."""
    waits: int = 0
    """Reads that waited and were served."""
    wait_seconds: float = 0.0
    wait_counts: list[int] = field(default_factory=_empty)
    """How many waited up to each of ``BOUNDS`` (and longer than the one before)."""
    failures: int = 0
    """Reads that waited and were not served."""
    fetch_seconds: float = 0.0
    fetch_counts: list[int] = field(default_factory=_empty)
    """The same for range requests that were answered."""
    retries: int = 0
    verify_failures: int = 0
    store_errors: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, **amounts: float) -> None:
        """Add to counters, by name.  From any thread."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def waited(self, seconds: float) -> None:
        """A read waited that long and was served."""
        with self._lock:
            self.waits += 1
            self.wait_seconds += seconds
            self.wait_counts[bisect_left(BOUNDS, seconds)] += 1

    def fetched(self, size: int, seconds: float) -> None:
        """A range request was answered with ``size`` bytes."""
        with self._lock:
            self.requests += 1
            self.fetched_bytes += size
            self.fetch_seconds += seconds
            self.fetch_counts[bisect_left(BOUNDS, seconds)] += 1

    def add(self, other: Stats) -> None:
        """Add the counters of ``other``."""
        with self._lock:
            for name, amount in other.as_dict().items():
                mine = getattr(self, name)
                if isinstance(amount, list):
                    setattr(self, name, [a + b for a, b in zip(mine, amount, strict=True)])
                else:
                    setattr(self, name, mine + amount)

    def as_dict(self) -> dict[str, int | float | list[int]]:
        """By name, for status messages and metrics."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "_lock"}
