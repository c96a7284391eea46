"""``/dev/fuse``: mounting on it, the INIT handshake, asking the kernel to ask again.

The supervisor answers FUSE_INIT: the answer then is the same whichever server comes.  A server
is given a copy of the request.
Layouts: include/uapi/linux/fuse.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct

from clip_runc.errors import MountFailed
from clip_runc.linux.mount import MS_NODEV, MS_NOSUID, MS_RDONLY, mount_filesystem

_IN_HEADER = struct.Struct("=IIQQIIIHH")
_INIT_IN = struct.Struct("=IIII")  # major, minor, max_readahead, flags; flags2 follows
_OUT_HEADER = struct.Struct("=IiQ")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
_OPCODE_INIT = 26
_NOTIFY_RESEND = 7
_CLONE = 0x8004E500  # FUSE_DEV_IOC_CLONE

ASYNC_READ = 1 << 0
DO_READDIRPLUS = 1 << 13
ASYNC_DIO = 1 << 15
PARALLEL_DIROPS = 1 << 18
MAX_PAGES = 1 << 22
CACHE_SYMLINKS = 1 << 23
EXPLICIT_INVAL_DATA = 1 << 25
_INIT_EXT = 1 << 30
_HAS_RESEND = 1 << 39
# Linux 6.12: the mount can be mounted again with the owners of another user namespace
ALLOW_IDMAP = 1 << 40
_WANTED = (
    ASYNC_READ
    | DO_READDIRPLUS
    | ASYNC_DIO
    | PARALLEL_DIROPS
    | MAX_PAGES
    | CACHE_SYMLINKS
    | EXPLICIT_INVAL_DATA
    | ALLOW_IDMAP
)

_DRIVER = "the kernel has no FUSE: modprobe fuse, or one with CONFIG_FUSE_FS"
_HINTS = {
    errno.ENOENT: "modprobe fuse; in a container, --device /dev/fuse",
    errno.ENODEV: _DRIVER,
    errno.ENXIO: _DRIVER,
    errno.EPERM: "in a container, --device /dev/fuse",
    errno.EACCES: "it has mode 0666 where udev makes it: chmod 666 /dev/fuse",
}

MAX_READ = 1 << 20
_PAGE = os.sysconf("SC_PAGESIZE")
_BUFFER = MAX_READ + (64 << 10)
# Beyond these many outstanding read-aheads the kernel holds further ones back, those of other
# files included; its default of 12 lets one stalled blob stall every image.
_MAX_BACKGROUND = 256
_CONGESTION = 192


def open_device() -> int:
    """A new, close-on-exec descriptor of ``/dev/fuse``.  Raises ``MountFailed``."""
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        code = error.errno or 0
        hint = _HINTS.get(code, "see dmesg for the kernel's reason")
        raise MountFailed(f"/dev/fuse: {error.strerror}", hint, code) from None


def mount_fuse(device: int, target: str) -> None:
    """Mount ``device`` read-only at ``target``, for every user, modes checked by the kernel."""
    options: list[tuple[str, str | None]] = [
        ("fd", str(device)),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
        ("default_permissions", None),
        ("allow_other", None),
        ("max_read", str(MAX_READ)),
    ]
    mount_filesystem("fuse", "clip", options, target, MS_RDONLY | MS_NODEV | MS_NOSUID)


def read_init(device: int) -> bytes:
    """The kernel's first request, which waits since the mount.  Raises ``MountFailed``."""
    request = os.read(device, _BUFFER)
    if len(request) < _IN_HEADER.size + _INIT_IN.size or _opcode(request) != _OPCODE_INIT:
        raise MountFailed("the kernel's first FUSE request is not INIT", "this is a bug")
    return request


def _opcode(request: bytes) -> int:
    opcode: int = _IN_HEADER.unpack_from(request)[1]
    return opcode


def init_reply(request: bytes) -> bytes:
    """The answer to INIT: of what we want, what this kernel has."""
    unique = _IN_HEADER.unpack_from(request)[2]
    major, minor, readahead, _ = _INIT_IN.unpack_from(request, _IN_HEADER.size)
    if major != 7 or minor < 23:
        raise MountFailed(f"the kernel speaks FUSE {major}.{minor}", "Linux 4.2 or later is needed")
    max_pages = MAX_READ // _PAGE
    flags = _flags(request) & _WANTED
    low = flags & 0xFFFFFFFF | (_INIT_EXT if flags >> 32 else 0)
    body = _INIT_OUT.pack(
        7, min(minor, 31), readahead, low, _MAX_BACKGROUND, _CONGESTION,
        4096, 1, max_pages, 0, flags >> 32,
    )  # fmt: skip
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(body), 0, unique) + body


def can_resend(request: bytes) -> bool:
    """Does the kernel that sent this INIT know FUSE_NOTIFY_RESEND (Linux 6.9)?"""
    return bool(_flags(request) & _HAS_RESEND)


def _flags(request: bytes) -> int:
    """What the kernel that sent this INIT can do, 64 bits."""
    if len(request) < _IN_HEADER.size + _INIT_IN.size:
        return 0
    low: int = _INIT_IN.unpack_from(request, _IN_HEADER.size)[3]
    offset = _IN_HEADER.size + _INIT_IN.size
    if not low & _INIT_EXT or len(request) < offset + 4:
        return low
    high: int = struct.unpack_from("=I", request, offset)[0]
    return high << 32 | low


def clone(device: int) -> int:
    """Another descriptor of the mount behind ``device``, with a list of requests of its own.

    When its last holder dies, the kernel ends what was taken through it with ECONNABORTED
    (fs/fuse/dev.c, fuse_dev_release), and the mount stays as long as ``device`` does.
    Raises ``OSError``.
    """
    other = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(other, _CLONE, struct.pack("=I", device))
    except OSError:
        os.close(other)
        raise
    return other


def resend(device: int) -> bool:
    """Have the kernel repeat every request that a dead server took; False before 6.9."""
    try:
        os.write(device, _OUT_HEADER.pack(_OUT_HEADER.size, _NOTIFY_RESEND, 0))
    except OSError:
        return False
    return True


def is_connected(device: int) -> bool:
    """Is the mount behind ``device`` still there?"""
    poll = select.poll()
    poll.register(device, select.POLLIN)
    return not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
