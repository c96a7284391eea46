"""A large file written from its start to its end past the page cache (``O_DIRECT``).

Pages that were not in use cost several times the copy into them, above all in a guest whose memory
is backed only while it is used, and what is written here is read with ``O_DIRECT`` or much later.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor

PIECE = 4 << 20
"""Bytes of a write: a multiple of every disk's sectors."""
SLOWEST = 200 << 20
"""Bytes a second.  With a slower disk the page cache takes what comes, and writes it later."""
_TRIED = 64 << 20


class SequentialFile:
    """A new file without a name in the directory ``directory_fd``, for one thread.

    ``fd`` can be read and linked; all of it is there after ``finish``.  Raises ``OSError``: when
    the file cannot be made, and from any method for what an earlier write came to.
    """

    def __init__(self, directory_fd: int) -> None:
        self._buffer, self._other = _buffer(), _buffer()
        flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
        self._direct = True
        try:
            self.fd = os.open(".", flags | os.O_DIRECT, 0o600, dir_fd=directory_fd)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._direct = False
            self.fd = os.open(".", flags, 0o600, dir_fd=directory_fd)
        self.cached = 0  # bytes that went to the page cache: the disk may not have them yet
        self._filled = 0
        self._end = 0  # of what was handed to the thread
        self._thread = ThreadPoolExecutor(1, "sequential-file")
        self._under_way: Future[None] | None = None
        self._seconds = 0.0

    def append(self, data: bytes | memoryview) -> None:
        """``data`` follows; it can be used again after this."""
        view = memoryview(data)
        while view:
            size = min(len(view), PIECE - self._filled)
            self._buffer[self._filled : self._filled + size] = view[:size]
            self._filled += size
            view = view[size:]
            if self._filled == PIECE:
                self._hand_over()

    def finish(self) -> None:
        """Write the rest."""
        self._wait()
        if self._direct:
            self._use_cache()  # the end is no whole block
        self._write(memoryview(self._buffer)[: self._filled], self._end)
        self._end, self._filled = self._end + self._filled, 0

    def close(self) -> None:
        """Let go of the file; without a name it is gone."""
        self._thread.shutdown()
        os.close(self.fd)

    def _hand_over(self) -> None:
        self._wait()
        if self._direct and self._end >= _TRIED and self._end / self._seconds < SLOWEST:
            self._use_cache()
        self._buffer, self._other = self._other, self._buffer
        self._under_way = self._thread.submit(self._write, memoryview(self._other), self._end)
        self._end, self._filled = self._end + PIECE, 0

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None

    def _use_cache(self) -> None:
        self._direct = False
        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        fcntl.fcntl(self.fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)

    def _write(self, view: memoryview, offset: int) -> None:
        begun = time.monotonic()
        while view:
            try:
                written = os.pwrite(self.fd, view, offset)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                self._use_cache()  # a file system that opens so and does not write so
                continue
            view, offset = view[written:], offset + written
            self.cached += 0 if self._direct else written
        self._seconds += time.monotonic() - begun


def _buffer() -> mmap.mmap:
    return mmap.mmap(-1, PIECE)  # begins where a page does, which O_DIRECT wants
