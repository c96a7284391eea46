"""How much the store holds, and what goes when that is too much: layers that nobody has open.

Whoever reads a layer holds a shared ``flock`` on its record (``layer_files``), so a layer can be
removed by any process that gets an exclusive one.  The time of a layer's directory says when it
was last opened or closed.  Removing is unlinking: a mount that has the file open keeps it.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from typing import NamedTuple

HIGH, LOW = 0.95, 0.80
"""Watermarks, as shares of the limit: above the first, layers go until the second."""
_RESCAN_SECONDS = 2.0
_NAME = re.compile(r"[0-9a-f]{64}(-[0-9a-f]{16})?")
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW


class Stored(NamedTuple):
    """A layer on disk: bytes that it occupies, its whole length, when it was used last."""

    name: str
    size: int
    length: int
    used: float


def stored(store_fd: int) -> list[Stored]:
    """The layers of the store, the least recently used first."""
    found = []
    for name in os.listdir(store_fd):
        if not _NAME.fullmatch(name):
            continue
        try:
            directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _OPEN, dir_fd=store_fd)
        except OSError:
            continue
        try:
            found.append(_measure(name, directory))
        finally:
            os.close(directory)
    return sorted(found, key=lambda layer: layer.used)


def _measure(name: str, directory: int) -> Stored:
    size, length = 0, 0
    for file in ("data", "record"):
        try:
            status = os.stat(file, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        size += status.st_blocks * 512
        length = status.st_size if file == "data" else length
    return Stored(name, size, length, os.fstat(directory).st_mtime)


def touch(store_fd: int, name: str) -> None:
    """The layer is used now.  A store that cannot be written is no error."""
    try:
        os.utime(name, dir_fd=store_fd, follow_symlinks=False)
    except OSError:
        return


def in_use(store_fd: int, name: str) -> bool:
    """Has anybody the layer open?"""
    record = _claim(store_fd, name)
    if record < 0:
        return True
    os.close(record)
    return False


def _claim(store_fd: int, name: str) -> int:
    """The record, locked for us alone (it is made where it lacks); -1 where it is in use."""
    flags = os.O_RDWR | os.O_CREAT | _OPEN
    record = os.open(f"{name}/record", flags, 0o600, dir_fd=store_fd)
    try:
        fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(record)
        return -1
    return record


def remove(store_fd: int, name: str) -> bool:
    """Remove a layer; False where it is in use or cannot be removed."""
    if not _NAME.fullmatch(name):
        return False
    try:
        record = _claim(store_fd, name)
        if record < 0:
            return False
        try:
            for file in ("data", "record"):
                try:
                    os.unlink(f"{name}/{file}", dir_fd=store_fd)
                except FileNotFoundError:
                    continue
            os.rmdir(name, dir_fd=store_fd)
        finally:
            os.close(record)
    except OSError:
        return False
    return True


def prune(store_fd: int, most: int) -> list[Stored]:
    """Remove layers that nobody uses, the least recently used first, until ``most`` bytes are left.

    Returns those that went.
    """
    layers = stored(store_fd)
    total = sum(layer.size for layer in layers)
    gone = []
    for layer in layers:
        if total <= most:
            break
        if remove(store_fd, layer.name):
            total -= layer.size
            gone.append(layer)
    return gone


class Quota:
    """The limit of a store, in bytes; 0 for none.  For any thread; may take disk time."""

    def __init__(self, store_fd: int, limit: int) -> None:
        self.limit = limit
        self._fd = store_fd
        self._lock = threading.Lock()
        self._used = -1
        self._scanned = 0.0

    def take(self, size: int) -> bool:
        """May ``size`` bytes be written?  Makes room where it can."""
        if not self.limit:
            return True
        with self._lock:
            if self._used < 0:
                self._used = self.used()
            if self._used + size > self.limit * HIGH and self._may_scan():
                prune(self._fd, max(0, int(self.limit * LOW) - size))
                self._used = self.used()
            if self._used + size > self.limit:
                return False
            self._used += size
            return True

    def used(self) -> int:
        """Bytes on disk."""
        return sum(layer.size for layer in stored(self._fd))

    def _may_scan(self) -> bool:
        """Not at every chunk of a store that is full of layers in use."""
        now = time.monotonic()
        if now - self._scanned < _RESCAN_SECONDS:
            return False
        self._scanned = now
        return True
