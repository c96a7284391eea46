"""How long a read waits: less, for a moment, where one has just waited in vain.

One read(2) that fails is several requests of the kernel: its read-ahead, then page by page, then
EROFS once more.  Each with the whole timeout, a program would hear of a dead registry after
four times the time that was set.  They are tried all the same: a registry may be back.
"""

from __future__ import annotations

import threading
import time

_RECENT = 0.1  # the kernel repeats at once; a program that tries again has all the time
_SHORT = 1.0
_REPEATS = 8
_KEPT = 256


class Patience:
    """The timeouts of a layer's chunks; ``timeout`` in seconds is the usual one."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._failed: dict[int, tuple[float, int]] = {}

    def seconds(self, chunk: int) -> float:
        """How long a read that begins in ``chunk`` should wait, if it came now."""
        until, left = self._failed.get(chunk, (0.0, 0))
        if not left or time.monotonic() > until:
            return self._timeout
        return min(_SHORT, self._timeout / 8)

    def failed(self, chunk: int, waited: float) -> None:
        """A read of ``chunk`` failed after ``waited`` seconds."""
        with self._lock:
            if waited >= self._timeout / 2:
                left = _REPEATS
            else:
                left = self._failed.get(chunk, (0.0, 0))[1] - 1
            self._failed.pop(chunk, None)
            if left > 0:
                self._failed[chunk] = time.monotonic() + _RECENT, left
            while len(self._failed) > _KEPT:
                del self._failed[next(iter(self._failed))]
