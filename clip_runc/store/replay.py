"""A prefetch list at work: its chunks are asked for in order, a bounded number at a time.

Reads that wait come first all the same: what is asked for here is served by the workers that
they leave (``workers``), and neighbours travel in one request.  Asking in small portions keeps
it possible to stop, and to hold a rate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from clip_runc.store.reader import LayerReader, Prefetch

WINDOW = 48 << 20
"""Compressed bytes that are asked for and not here yet: several requests for each worker."""

PORTION = 8 << 20
"""Compressed bytes asked for at once; with a rate, about a tenth of a second of it."""

_TICK = 0.01


class Part(NamedTuple):
    """Chunks ``first`` to ``last`` of a layer."""

    reader: LayerReader
    first: int
    last: int


class Replay:
    """Fetches ``parts`` in a thread of its own from ``start`` until ``stop``.

    ``rate``: compressed bytes a second, 0 for as fast as it goes.  ``done`` is called in the
    thread when all was asked for and is here, or when it was stopped.
    """

    def __init__(
        self, parts: Sequence[Part], rate: int = 0, done: Callable[[], None] = lambda: None
    ) -> None:
        self._parts = parts
        self._rate = rate
        self._done = done
        self._stopped = threading.Event()
        self._all_here = False
        self._asked: list[tuple[Prefetch, int]] = []
        self._thread = threading.Thread(target=self._run, name="store-replay", daemon=True)
        self.bytes = 0

    def start(self) -> None:
        """Begin.  Nothing is read ahead of readers of what is listed: that is only a guess."""
        for part in self._parts:
            part.reader.listed |= frozenset(range(part.first, part.last + 1))
        self._thread.start()

    def stop(self) -> None:
        """Ask for nothing more, and leave out what was not begun.

        A list that was fetched to its end stays known to the readers: the container may still
        have most of it to read.
        """
        self._stopped.set()
        for part in self._parts if not self._all_here else ():
            part.reader.listed = frozenset()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            began = time.monotonic()
            for part in self._parts:
                for first, last, size in _portions(part, self._portion()):
                    if not self._ready(began, size):
                        return
                    self.bytes += size
                    self._asked.append((part.reader.prefetch(range(first, last + 1)), size))
            while self._outstanding() and not self._stopped.wait(_TICK):
                continue
            self._all_here = not self._stopped.is_set()
        finally:
            for token, _ in self._asked:
                token.cancel()
            self._done()

    def _portion(self) -> int:
        return min(PORTION, max(1, self._rate // 10)) if self._rate else PORTION

    def _ready(self, began: float, size: int) -> bool:
        """Wait until ``size`` bytes more may be asked for; False when it is over."""
        while not self._stopped.is_set():
            early = self._rate and self.bytes > self._rate * (time.monotonic() - began)
            outstanding = self._outstanding()
            if not early and (not outstanding or outstanding + size <= WINDOW):
                return True
            self._stopped.wait(_TICK)
        return False

    def _outstanding(self) -> int:
        self._asked = [(token, size) for token, size in self._asked if token.busy()]
        return sum(size for _, size in self._asked)


def _portions(part: Part, limit: int) -> list[tuple[int, int, int]]:
    """``(first, last, compressed bytes)``, as many chunks in each as fit; at least one."""
    found: list[tuple[int, int, int]] = []
    for chunk in range(part.first, part.last + 1):
        size = part.reader.compressed(chunk)
        if found and found[-1][2] + size <= limit:
            first, _, sum_ = found[-1]
            found[-1] = first, chunk, sum_ + size
        else:
            found.append((chunk, chunk, size))
    return found
