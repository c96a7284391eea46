"""Removing what a container left: directories whose content is hostile.

Never by path below the first step: each directory is opened relative to its parent without
following a symlink, and one on another device (something is mounted there) is left alone.
Depth costs nothing: a directory deep down is moved up before it is emptied, so neither
descriptors nor the stack run out.
"""

from __future__ import annotations

import errno
import os
import stat
import time

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 32
# include/uapi/linux/fs.h
_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602
_IMMUTABLE_OR_APPEND = 0x10 | 0x20


class OutOfTime(Exception):
    """The deadline passed before everything was gone."""


class _Removal:
    def __init__(self, top_fd: int, deadline: float) -> None:
        self.top_fd = top_fd
        self.device = os.fstat(top_fd).st_dev
        self.deadline = deadline
        self.moved = 0
        self.kept: list[str] = []

    def empty(self, fd: int, depth: int) -> None:
        """Remove everything inside the open directory ``fd``."""
        for name in os.listdir(fd):
            if time.monotonic() > self.deadline:
                raise OutOfTime
            try:
                self.remove(fd, name, depth)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.kept.append(f"{name}: {error.strerror}")

    def remove(self, parent: int, name: str, depth: int) -> None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            _stubborn(parent, name, status.st_mode, directory=False)
            return
        if status.st_dev != self.device:
            self.kept.append(f"{name}: another file system is mounted there")
            return
        if depth >= _DEPTH:
            self.moved += 1
            _move(parent, name, self.top_fd, f".deep-{os.getpid()}-{self.moved}")
            return
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            self.empty(fd, depth + 1)
        finally:
            os.close(fd)
        _stubborn(parent, name, status.st_mode, directory=True)

    def run(self) -> None:
        """Until what was moved up is gone as well."""
        while True:
            before = self.moved
            self.empty(self.top_fd, 0)
            if self.moved == before:
                return


def _move(parent: int, name: str, to: int, new: str) -> None:
    try:
        os.rename(name, new, src_dir_fd=parent, dst_dir_fd=to)
    except PermissionError:
        _clear_flags(parent, name)
        _clear_flags_of(parent)
        os.rename(name, new, src_dir_fd=parent, dst_dir_fd=to)


def _stubborn(parent: int, name: str, mode: int, *, directory: bool) -> None:
    """unlinkat(2); immutable and append-only files (chattr) lose their flag first."""
    remove = os.rmdir if directory else os.unlink
    try:
        remove(name, dir_fd=parent)
    except PermissionError:
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            _clear_flags(parent, name)
        _clear_flags_of(parent)
        remove(name, dir_fd=parent)


def _clear_flags(parent: int, name: str) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    try:
        _clear_flags_of(fd)
    finally:
        os.close(fd)


def _clear_flags_of(fd: int) -> None:
    import fcntl
    import struct

    try:
        flags = struct.unpack("l", fcntl.ioctl(fd, _GETFLAGS, bytes(8)))[0]
        if flags & _IMMUTABLE_OR_APPEND:
            fcntl.ioctl(fd, _SETFLAGS, struct.pack("l", flags & ~_IMMUTABLE_OR_APPEND))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
            raise


def remove_tree(path: str, seconds: float = 30.0) -> list[str]:
    """Remove the directory ``path`` with all that is in it; what could not be, in words.

    Stops after ``seconds``.  A path that does not exist is done already; a symlink is removed,
    not followed.
    """
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            return [f"{path}: {error.strerror}"]
        os.unlink(path)
        return []
    removal = _Removal(fd, time.monotonic() + seconds)
    try:
        removal.run()
    except OutOfTime:
        return [f"{path}: not all removed in {seconds:.0f} s"]
    finally:
        os.close(fd)
    try:
        os.rmdir(path)
    except OSError as error:
        return [f"{path}: {error.strerror}", *removal.kept[:5]]
    return removal.kept[:5]
