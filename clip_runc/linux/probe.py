"""What this kernel can do, found by trying."""

from __future__ import annotations

import ctypes
import os
import struct

from clip_runc.linux import syscalls

_AT_FDCWD = -100
_DT_UNKNOWN = 0
# struct linux_dirent64: d_ino, d_off, d_reclen, d_type, then the name
_DIRENT = struct.Struct("=QqHB")


def has_pidfd() -> bool:
    """pidfd_open and pidfd_getfd (Linux 5.6): how clipd's parts find each other again."""
    try:
        own = os.pidfd_open(os.getpid())
    except OSError:
        return False
    try:
        os.close(syscalls.syscall("pidfd_getfd", own, own, 0))
    except OSError:
        return False
    finally:
        os.close(own)
    return True


def has_openat2() -> bool:
    """openat2 (Linux 5.6): runc confines paths of a container with it."""
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, 0)
    try:
        os.close(syscalls.syscall("openat2", _AT_FDCWD, b"/", how, len(how)))
    except OSError:
        return False
    return True


def tells_types(directory: str) -> bool:
    """Does the file system give d_type, which overlayfs needs?  Raises ``OSError``.

    XFS made with ftype=0 does not.  Every directory has ``.`` and ``..`` to look at.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    buffer = ctypes.create_string_buffer(4096)
    try:
        length = syscalls.check(syscalls.libc.getdents64(fd, buffer, len(buffer)))
    finally:
        os.close(fd)
    offset, types = 0, []
    while offset + _DIRENT.size <= length:
        _, _, size, kind = _DIRENT.unpack_from(buffer, offset)
        types.append(kind)
        offset += size
    return bool(types) and _DT_UNKNOWN not in types
