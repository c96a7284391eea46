"""The data file of a layer: sparse, the uncompressed tar stream, and a watch on who writes it.

``changed()`` says whether somebody else wrote or truncated the file since we last looked, by
its size and ctime (which, unlike the mtime, nobody can set back): one ``fstat``.  It cannot
see a change within the clock tick of a write of ours, or while writes of ours overlap; it is
there for a store that was damaged (``dd``, a backup put back, an old server that still
writes), not against whoever owns the directory.
"""

from __future__ import annotations

import errno
import os
import threading


class DataFile:
    """An open data file of ``size`` bytes.

    The descriptor is closed when the last reference goes, so a thread that is in ``read``
    while the layer is closed never reads a descriptor number that means another file.
    """

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        self.fd = fd
        self.size = size
        self.writable = writable
        self._lock = threading.Lock()
        self._begun = 0
        self._ended = 0
        found = os.fstat(fd)
        self._seen = found.st_size
        self._ctime = found.st_ctime_ns

    def __del__(self) -> None:
        os.close(self.fd)

    def changed(self) -> bool:
        """Whether a write or truncation that is not ours happened.  Takes no lock."""
        begun = self._begun
        quiet = begun == self._ended
        found = os.fstat(self.fd)
        if found.st_size != self._seen:
            return True
        # a write of ours that runs, or began while we looked, explains any ctime
        return found.st_ctime_ns != self._ctime and quiet and begun == self._begun

    def accept(self) -> None:
        """Put the size right and take the file as it is from now on."""
        with self._lock:
            if self.writable and os.fstat(self.fd).st_size != self.size:
                os.ftruncate(self.fd, self.size)
            found = os.fstat(self.fd)
            self._seen = found.st_size
            self._ctime = found.st_ctime_ns

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes at ``offset``; fewer when the file is too short."""
        data = os.pread(self.fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        got = len(data)
        while got < length and (data := os.pread(self.fd, length - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """All of ``data`` at ``offset``; raises ``OSError``."""
        if not self.writable:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        with self._lock:
            self._begun += 1
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(self.fd, view, offset)
                view, offset = view[written:], offset + written
        finally:
            with self._lock:
                # the ctime first: ``changed`` compares it once begun and ended agree
                self._ctime = os.fstat(self.fd).st_ctime_ns
                self._ended += 1

    def forget(self) -> None:
        """Give back the pages that are clean, and begin to write those that are not.

        A file system that cannot is no error.
        """
        try:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return

    def sync(self) -> None:
        """Wait until the data is on the disk; raises ``OSError``."""
        os.fdatasync(self.fd)
