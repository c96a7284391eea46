"""libc through ctypes: the few calls that ``os`` lacks, with errno as an ``OSError``.

What belongs here: prototypes and numbers.  What they are good for is in the neighbours.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)

# Since Linux 5.2 new calls have one number on all architectures, but for the offsets of
# alpha and of the MIPS ABIs (include/uapi/asm-generic/unistd.h, arch/*/kernel/syscalls).
_NUMBERS = {
    "openat2": 437,
    "pidfd_getfd": 438,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
}
_OFFSETS = {"alpha": 110, "mips64": 5000, "mips": 4000}


def number(name: str, machine: str | None = None) -> int:
    """The number of a system call on ``machine`` (``uname -m``; this machine by default)."""
    return _NUMBERS[name] + _OFFSETS.get(machine or os.uname().machine, 0)


def check(result: int) -> int:
    """``result`` of a libc call; raises ``OSError`` with errno where it is -1."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def syscall(name: str, *arguments: int | bytes | None) -> int:
    """Call by number: integers as long, bytes as a C string, ``None`` as NULL."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    return check(_syscall()(ctypes.c_long(number(name)), *converted))


def _syscall() -> Callable[..., int]:
    function = libc.syscall
    function.restype = ctypes.c_long
    return function


def mount(
    source: bytes | None, target: bytes, fstype: bytes | None, flags: int, data: bytes | None
) -> None:
    """mount(2)."""
    check(libc.mount(source, target, fstype, ctypes.c_ulong(flags), data))


def umount2(target: bytes, flags: int) -> None:
    """umount2(2)."""
    check(libc.umount2(target, flags))


def prctl(option: int, *arguments: int) -> int:
    """prctl(2); missing arguments are zero, as most options demand."""
    values = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return check(libc.prctl(ctypes.c_int(option), *values))
