"""A disk that remembers what was written to it, and in which order: what a power cut may leave.

``python -m tests.integration.recording_disk DIRECTORY JOURNAL MIB`` is a FUSE file system with
one file, ``disk``, for a loop device: each write and each flush is appended to JOURNAL.  A disk
may lose any part of what was written since the last flush, and nothing before it (``Journal``).
"""

from __future__ import annotations

import errno
import os
import random
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyfuse3
import trio

SECTOR = 512
_ENTRY = struct.Struct("=QQ")
_FLUSH = (1 << 64) - 1  # for an offset
_DISK = 2


class _Disk(pyfuse3.Operations):
    """The directory (inode 1) and the file in it."""

    def __init__(self, size: int, journal: int) -> None:
        super().__init__()
        self._data = bytearray(size)
        self._journal = journal

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name != b"disk":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(_DISK, ctx)

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        found = pyfuse3.EntryAttributes()
        found.st_ino = inode
        found.st_mode = stat.S_IFREG | 0o600 if inode == _DISK else stat.S_IFDIR | 0o700
        found.st_size = len(self._data) if inode == _DISK else 0
        return found

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=inode, direct_io=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return bytes(memoryview(self._data)[off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        self._data[off : off + len(buf)] = buf
        os.write(self._journal, _ENTRY.pack(off, len(buf)) + buf)
        return len(buf)

    async def flush(self, fh: int) -> None:
        """close(2) promises nothing."""

    async def release(self, fh: int) -> None:
        """Nothing is held."""

    async def fsync(self, fh: int, datasync: bool) -> None:
        os.write(self._journal, _ENTRY.pack(_FLUSH, 0))


def serve(directory: str, journal: str, mib: int) -> None:
    """Until it is unmounted."""
    log = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pyfuse3.init(_Disk(mib << 20, log), directory, {"fsname=recording-disk"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


class Journal:
    """What was written, in order; ``len`` is the number of moments at which power may go."""

    def __init__(self, path: Path, mib: int) -> None:
        self._size = mib << 20
        self._entries: list[tuple[int, bytes]] = []
        data = memoryview(path.read_bytes())
        while data:
            offset, length = _ENTRY.unpack_from(data)
            self._entries.append((offset, bytes(data[_ENTRY.size : _ENTRY.size + length])))
            data = data[_ENTRY.size + length :]

    def __len__(self) -> int:
        return len(self._entries)

    def flushes(self) -> list[int]:
        """The moments right after a flush."""
        return [at + 1 for at, (offset, _) in enumerate(self._entries) if offset == _FLUSH]

    def cut(self, moment: int, luck: random.Random, path: Path) -> None:
        """Write the disk as it may be when power goes after ``moment`` entries."""
        safe = max((at for at in self.flushes() if at <= moment), default=0)
        with path.open("wb") as disk:
            disk.truncate(self._size)
            for at, (offset, data) in enumerate(self._entries[:moment]):
                if offset == _FLUSH:
                    continue
                if at >= safe:
                    data = _some(data, luck)
                disk.seek(offset)
                disk.write(data)


def _some(data: bytes, luck: random.Random) -> bytes:
    """All of a write, the first of its sectors, or nothing."""
    kept = luck.choice((0, len(data), luck.randrange(0, len(data) + 1, SECTOR)))
    return data[:kept]


@contextmanager
def recording(place: Path, mib: int) -> Iterator[tuple[Path, Path]]:
    """Such a disk below ``place``: its file and its journal."""
    directory, journal = place / "recording", place / "journal"
    directory.mkdir()
    argv = [sys.executable, "-m", __name__, str(directory), str(journal), str(mib)]
    process = subprocess.Popen(argv)
    disk = directory / "disk"
    try:
        end = time.monotonic() + 30
        while not os.path.ismount(directory):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        yield disk, journal
    finally:
        subprocess.run(["umount", directory], check=False)
        process.wait(30)
        directory.rmdir()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
