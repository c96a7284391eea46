"""A loop of one thread: descriptors, timers, children.  Standard library only."""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[], None]


class Loop:
    """Calls back when a descriptor can be read, when time has passed, when a child ended."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callback]] = []
        self._numbers = itertools.count()
        self._running = True

    def watch(self, fd: int, callback: Callback) -> None:
        """Call when ``fd`` can be read, until ``unwatch``."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        """Call no more; before the descriptor is closed."""
        self._selector.unregister(fd)

    def later(self, seconds: float, callback: Callback) -> None:
        """Call once, ``seconds`` from now."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), callback))

    def every(self, seconds: float, callback: Callback) -> None:
        """Call again and again."""

        def again() -> None:
            self.later(seconds, again)
            callback()

        self.later(seconds, again)

    def child(self, pid: int, ended: Callable[[int], None]) -> None:
        """Wait for a child; ``ended`` gets its exit code, negative for a signal."""
        handle = os.pidfd_open(pid)

        def readable() -> None:
            self.unwatch(handle)
            os.close(handle)
            ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        self.watch(handle, readable)

    def output(self, pid: int, pipe: int, done: Callable[[int, bytes], None]) -> None:
        """Read what a child writes and wait for it; ``done`` gets exit code and bytes."""
        data = bytearray()

        def readable() -> None:
            piece = os.read(pipe, 65536)
            data.extend(piece)
            if not piece:
                self.unwatch(pipe)
                os.close(pipe)
                self.child(pid, lambda code: done(code, bytes(data)))

        self.watch(pipe, readable)

    def stop(self) -> None:
        """Have ``run`` return."""
        self._running = False

    def run(self) -> None:
        """Until ``stop``."""
        while self._running:
            for key, _ in self._selector.select(self._timeout()):
                if key.fileobj in self._selector.get_map():  # not unwatched by one before it
                    key.data()
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()

    def _timeout(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
