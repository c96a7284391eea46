"""What pyfuse3 needs of trio, without a turn of the event loop where none is needed.

pyfuse3 waits for each request by a lock and ``wait_readable``: two turns of the loop (epoll, a
queue, a switch of tasks), which take several times as long as the answer to a lookup.  Where the
next request is there already, or comes in the moment that the kernel needs to wake its caller and
that to ask again, it is read at once.  pyfuse3's module ``asyncio`` replaces ``trio`` likewise.
"""

from __future__ import annotations

import os
import select
from collections import deque
from time import perf_counter
from typing import Any

import pyfuse3
import trio

_LOOKS = 3
_SOON = 100e-6
"""Seconds for which the next request is looked for where the one before came within them.

A processor that sleeps takes longer to wake than a lookup takes.
"""

_AT_ONCE = 64
"""Requests after which everybody else has a turn."""


class Lock:
    """Held by who waits for the next request; free, it is had without a turn of the loop."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[trio.Event] = deque()

    async def __aenter__(self) -> None:
        while self._held:
            event = trio.Event()
            self._waiting.append(event)
            try:
                await event.wait()
            except trio.Cancelled:
                if event in self._waiting:
                    self._waiting.remove(event)
                else:  # chosen after it was cancelled
                    self._wake_next()
                raise
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False
        self._wake_next()

    def _wake_next(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()


class Lowlevel:
    """``trio.lowlevel`` with a ``wait_readable`` that looks first."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._fd = -1
        self._at_once = 0
        self._soon = False

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, fd: int) -> None:
        """Return when ``fd`` can be read; of one descriptor, by one task at a time."""
        if fd != self._fd:
            self._poll, self._fd = select.poll(), fd
            self._poll.register(fd, select.POLLIN)
        self._at_once += 1
        if self._at_once > _AT_ONCE:
            self._at_once = 0
            await trio.lowlevel.checkpoint()
        begun = perf_counter()
        looks = 0
        while looks < _LOOKS or (self._soon and perf_counter() < begun + _SOON):
            if self._poll.poll(0):
                return
            os.sched_yield()
            looks += 1
        self._at_once = 0
        await trio.lowlevel.wait_readable(fd)
        self._soon = perf_counter() < begun + _SOON


class Trio:
    """The module ``trio`` but for those two."""

    def __init__(self) -> None:
        self.lowlevel = Lowlevel()
        self.Lock = Lock

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)


def enable() -> None:
    """From now on, and before ``pyfuse3.main``."""
    pyfuse3.trio = Trio()  # type: ignore[attr-defined]  # as pyfuse3.asyncio does
