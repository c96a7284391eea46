"""What the server sees of a start: which chunks were read when, who waited, what was fetched.

Always on: it costs a read two lookups in a table.  What the kernel serves from its caches does
not get here, so ``clipctl record`` runs on a machine of its own whose caches know nothing yet.
Times are seconds of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from weakref import WeakValueDictionary

from clip_runc.store import Fetcher, LayerReader

EVENTS = 8192
"""Waits of a layer and fetches of all that are remembered; the last ones."""

_BUCKET = 0.1
_PIECE = 8 << 20

Row = list[float | int]


class Observed:
    """A ``LayerReader`` as ``fs/view.py`` wants it, that notes what is asked of it."""

    def __init__(self, reader: LayerReader) -> None:
        self.reader = reader
        self.size = reader.size
        self.chunk_at = reader.chunk_at
        self.first = array("d", bytes(8 * reader.chunk_count))
        self.until = array("d", bytes(8 * reader.chunk_count))
        self.waits: deque[Row] = deque(maxlen=EVENTS)
        self.hits: deque[Row] = deque(maxlen=EVENTS)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """As the reader's; what is answered is a hit."""
        found = self.reader.read_cached(offset, length)
        if found:
            now = time.monotonic()
            self._touch(offset, offset + len(found), now)
            self._count(now, len(found))
        return found

    def request(self, offset: int, length: int) -> Future[bytes]:
        """As the reader's; noted when it is answered, and the chunks at once."""
        now = time.monotonic()
        self._touch(offset, min(offset + length, self.size), now)
        future = self.reader.request(offset, length)
        future.add_done_callback(partial(self._waited, now, offset, length))
        return future

    def _touch(self, offset: int, end: int, now: float) -> None:
        first = self.chunk_at(offset)
        if first < 0 or end <= offset:
            return
        for chunk in range(first, self.chunk_at(end - 1) + 1):
            if not self.first[chunk]:
                self.first[chunk] = now

    def _count(self, now: float, length: int) -> None:
        """Hits come by the thousand: one row for each tenth of a second."""
        time_of_bucket = now - now % _BUCKET
        if not self.hits or self.hits[-1][0] != time_of_bucket:
            self.hits.append([time_of_bucket, 0, 0])
        row = self.hits[-1]
        row[1] += 1
        row[2] += length

    def _waited(self, began: float, offset: int, length: int, future: Future[bytes]) -> None:
        now = time.monotonic()
        good = not future.cancelled() and future.exception() is None
        self.waits.append([began, now - began, offset, length, int(good)])
        first = self.chunk_at(offset)
        last = self.chunk_at(min(offset + length, self.size) - 1)
        for chunk in range(first, last + 1) if first >= 0 else ():
            self.until[chunk] = self.until[chunk] or now

    def touched(self) -> list[Row]:
        """``[chunk, first wanted, there]`` of each chunk that was, in the order of time.

        ``there`` is 0 where nobody had to wait.
        """
        rows: list[Row] = [
            [chunk, first, self.until[chunk]] for chunk, first in enumerate(self.first) if first
        ]
        return sorted(rows, key=lambda row: row[1])


class Observers:
    """One ``Observed`` for a reader, as long as somebody has it."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[int, Observed] = WeakValueDictionary()

    def of(self, reader: LayerReader) -> Observed:
        """The same for the same reader: images share layers."""
        found = self._known.get(id(reader))  # which it keeps alive: the number is its own
        if found is None:
            found = Observed(reader)
            self._known[id(reader)] = found
        return found


class ObservedFetcher:
    """A fetcher whose ranges are noted: ``(began, seconds, digest, start, end, good)``."""

    def __init__(self, fetcher: Fetcher, log: deque[tuple[float, float, str, int, int, bool]]):
        self._fetcher = fetcher
        self._log = log

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        """As the fetcher's."""
        began, good = time.monotonic(), False
        try:
            data = self._fetcher.read_range(digest, start, end, deadline=deadline)
            good = True
            return data
        finally:
            self._log.append((began, time.monotonic() - began, digest, start, end, good))

    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        """As the fetcher's; noted in pieces of some MiB."""
        began, at, low = time.monotonic(), start, start
        for data in self._fetcher.stream(digest, size, start):
            at += len(data)
            if at - low >= _PIECE or at >= size:
                now = time.monotonic()
                self._log.append((began, now - began, digest, low, at, True))
                began, low = now, at
            yield data
