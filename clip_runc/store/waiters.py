"""A read that waits for chunks."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, InvalidStateError

from clip_runc.errors import ClipError, RegistryUnreachable


class Waiter:
    """The bytes ``[offset, end)`` of a layer, wanted until ``deadline`` (monotonic seconds).

    ``parts`` collects copies of what came from memory, by chunk; ``lacking`` counts the chunks
    that are still to come and is changed with the pool's lock held.
    """

    __slots__ = ("deadline", "end", "future", "lacking", "offset", "parts", "since")

    def __init__(self, offset: int, end: int, timeout: float) -> None:
        self.offset = offset
        self.end = end
        self.since = time.monotonic()
        self.deadline = self.since + timeout
        self.future: Future[bytes] = Future()
        self.parts: dict[int, bytes] = {}
        self.lacking = 0

    def take(self, chunk: int, start: int, data: bytes) -> None:
        """Copy what is wanted of ``data``, the bytes of ``chunk``, which lies at ``start``."""
        low, high = max(self.offset, start), min(self.end, start + len(data))
        self.parts[chunk] = data[low - start : high - start]

    def waited(self) -> float:
        """Seconds since the read came."""
        return time.monotonic() - self.since

    def succeed(self, data: bytes) -> None:
        """Hand the bytes over; nothing happens when the read was given up."""
        try:
            self.future.set_result(data)
        except InvalidStateError:
            return

    def late(self) -> RegistryUnreachable:
        """The error for a read whose time is over."""
        return RegistryUnreachable(
            f"bytes {self.offset} to {self.end} of a layer did not come within "
            f"{self.deadline - self.since:g} seconds",
            "is the registry reachable, and is the connection fast enough?",
        )

    def fail(self, error: ClipError) -> None:
        """Hand the error over; nothing happens when the read was given up."""
        try:
            self.future.set_exception(error)
        except InvalidStateError:
            return


class Deadlines:
    """The waiters of all layers, so that none waits longer than it said.

    It must not keep a read that was served: results are large.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Waiter, None] = {}

    def add(self, waiter: Waiter) -> None:
        """Watch ``waiter``."""
        with self._lock:
            self._waiting[waiter] = None

    def discard(self, waiter: Waiter) -> None:
        """``waiter`` has its answer."""
        with self._lock:
            self._waiting.pop(waiter, None)

    def __len__(self) -> int:
        return len(self._waiting)

    def expired(self, now: float) -> list[Waiter]:
        """Take out and return the waiters whose time is over."""
        with self._lock:
            late = [waiter for waiter in self._waiting if waiter.deadline <= now]
            for waiter in late:
                del self._waiting[waiter]
        return late
