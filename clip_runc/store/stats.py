"""What the store did, in numbers."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields


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
    retries: int = 0
    verify_failures: int = 0
    store_errors: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, **amounts: float) -> None:
        """Add to counters, by name.  From any thread."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def add(self, other: Stats) -> None:
        """Add the counters of ``other``."""
        self.count(**other.as_dict())

    def as_dict(self) -> dict[str, int | float]:
        """By name, for status messages and metrics."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "_lock"}
