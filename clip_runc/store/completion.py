"""What is not on this machine of some layers, fetched while nobody waits for anything else.

Behind every read (the workers' rules say how, ``workers``), at a rate, and not at all while reads
have to wait for data, nor for ``QUIET`` seconds after the last that had: a start goes on in bursts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from clip_runc.store.reader import LayerReader

QUIET = 2.0
"""Seconds without a read that had to wait, before anything is asked for."""

PORTION = 8 << 20
"""Compressed bytes that are asked for at once, at most a second's worth of the rate: what a read
may find under way before it."""

_TICK = 0.05


class Completion:
    """Fetches in a thread of its own from ``start`` until all is there, or ``stop``.

    ``rate``: compressed bytes a second, 0 for as fast as it goes; a layer that can only be read
    from its start comes at once whatever the rate.  ``quiet`` says for how many seconds no read
    has had to wait.  ``done`` is called in the thread at the end, whatever that was.
    """

    def __init__(
        self,
        readers: Iterable[LayerReader],
        rate: int,
        quiet: Callable[[], float],
        done: Callable[[Completion], None],
    ) -> None:
        self._readers = list(dict.fromkeys(readers))
        self._rate = rate
        self._quiet = quiet
        self._done = done
        self._stopped = threading.Event()
        self._free_at = 0.0
        self._thread = threading.Thread(target=self._run, name="store-completion", daemon=True)
        self.bytes = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for nothing more, and leave out what was not begun."""
        self._stopped.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

    def left(self) -> int:
        """How many chunks are not on disk and verified."""
        return sum(len(reader.lacking()) for reader in self._readers)

    def _run(self) -> None:
        try:
            for reader in self._readers:
                self._complete(reader)
        finally:
            self._done(self)

    def _complete(self, reader: LayerReader) -> None:
        limit = min(PORTION, self._rate) if self._rate else PORTION
        for chunks, size in portions(reader.lacking(), reader.compressed, limit):
            if not self._may_ask(size) or not reader.storing:
                return
            token = reader.prefetch(chunks)
            self.bytes += size
            while token.busy() and not self._stopped.wait(_TICK):
                continue
            token.cancel()

    def _may_ask(self, size: int) -> bool:
        """Wait for a quiet moment that the rate allows; False when it is over."""
        while not self._stopped.is_set():
            wait = max(QUIET - self._quiet(), self._free_at - time.monotonic())
            if wait <= 0:
                if self._rate:
                    self._free_at = time.monotonic() + size / self._rate
                return True
            self._stopped.wait(wait)
        return False


def portions(
    chunks: Sequence[int], compressed: Callable[[int], int], limit: int
) -> Iterator[tuple[list[int], int]]:
    """Chunks in order, as many as have ``limit`` bytes (at least one), and their bytes."""
    found: list[int] = []
    size = 0
    for chunk in chunks:
        more = compressed(chunk)
        if found and size + more > limit:
            yield found, size
            found, size = [], 0
        found.append(chunk)
        size += more
    if found:
        yield found, size
