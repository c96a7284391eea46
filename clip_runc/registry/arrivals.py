"""How many bytes of a body a read waits for.

A kernel wakes whoever reads for every few packets.  Where bytes come quickly it is told to wait for
more (``SO_RCVLOWAT``, socket(7)), and the processor is left to those who decode what came.
"""

from __future__ import annotations

import socket
import time

MANY = 256 << 10
"""Bytes that are waited for at once, and read at once."""

_FAST = 5 << 20
"""Bytes a second from which on they are: then ``MANY`` take a twentieth of a second."""


class Arrivals:
    """The reads of one body from ``sock``; all of it a no-op where that is None.

    At the end of a body, and before anything is known of its speed, a single byte ends the wait.
    """

    def __init__(self, sock: socket.socket | None) -> None:
        self._sock = sock
        self._low = 1
        self._came = 0
        self._waited = 0.0
        self._begun = 0.0

    def before(self, left: int) -> None:
        """A read comes, and ``left`` bytes of the body were not read yet."""
        self._begun = time.monotonic()
        fast = self._came >= MANY and self._came >= _FAST * self._waited
        # twice: some of what is left may have come already, to a buffer above the socket
        low = MANY if fast and left >= 2 * MANY else 1
        if self._sock is not None and low != self._low:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low)
            self._low = low

    def after(self, count: int) -> None:
        """The read gave ``count`` bytes."""
        waited = time.monotonic() - self._begun
        if self._came >= 8 * MANY:  # what was long ago says little
            self._came, self._waited = self._came // 2, self._waited / 2
        self._came += count
        self._waited += waited
