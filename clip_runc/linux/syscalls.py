"""libc: the few calls that ``os`` lacks, with errno as an ``OSError``.

What belongs here: prototypes and numbers.  What they are good for is in the neighbours.

The shim makes its calls through ``_ctypes``, the part written in C: importing ``ctypes`` on top of
it costs 3 to 5 ms (its structures and ``struct``), ``_ctypes`` with the classes below 0.7.  It is a
private name of CPython, so ``ctypes`` stands in where it is missing.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Since Linux 5.2 new calls have one number on all architectures, but for the offsets of
# alpha and of the MIPS ABIs (include/uapi/asm-generic/unistd.h, arch/*/kernel/syscalls).
_NUMBERS = {
    "openat2": 437,
    "pidfd_getfd": 438,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "mount_setattr": 442,
}
_OFFSETS = {"alpha": 110, "mips64": 5000, "mips": 4000}
_NOW = 2  # RTLD_NOW


def _bind() -> tuple[Callable[[str], Any], Callable[[int], object], Callable[[], int]]:
    """``syscall`` and functions that return an int, by name; a long as an argument; errno."""
    module: Any
    try:
        import _ctypes as module  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        library.syscall.restype = ctypes.c_long
        return library.__getattr__, ctypes.c_long, ctypes.get_errno
    # as in ctypes: a class of CFuncPtr for each type of result
    integer = type("c_int", (module._SimpleCData,), {"_type_": "i"})
    long = type("c_long", (module._SimpleCData,), {"_type_": "l"})
    flags = module.FUNCFLAG_CDECL | module.FUNCFLAG_USE_ERRNO
    handle = module.dlopen(None, _NOW)

    def function(name: str) -> Any:
        result = long if name == "syscall" else integer
        kind = type(name, (module.CFuncPtr,), {"_flags_": flags, "_restype_": result})
        return kind(module.dlsym(handle, name))

    return function, long, module.get_errno


_function, _long, _errno = _bind()
_functions: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    """``libc``, for calls with structures, which are not on the shim's path."""
    if name != "libc":
        raise AttributeError(name)
    import ctypes

    library = globals()["libc"] = ctypes.CDLL(None, use_errno=True)
    return library


def number(name: str, machine: str | None = None) -> int:
    """The number of a system call on ``machine`` (``uname -m``; this machine by default)."""
    return _NUMBERS[name] + _OFFSETS.get(machine or os.uname().machine, 0)


def check(result: int) -> int:
    """``result`` of a call through ``libc``; raises ``OSError`` with errno where it is -1."""
    if result == -1:
        import ctypes

        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _call(name: str, *arguments: object) -> int:
    """A function of libc; integers go as int, ``_long(x)`` as long, ``None`` as NULL."""
    function = _functions.get(name)
    if function is None:
        function = _functions[name] = _function(name)
    result: int = function(*arguments)
    if result == -1:
        code = _errno()
        raise OSError(code, os.strerror(code))
    return result


def syscall(name: str, *arguments: int | bytes | None) -> int:
    """Call by number: integers as long, bytes as a C string, ``None`` as NULL."""
    converted = [_long(a) if isinstance(a, int) else a for a in arguments]
    return _call("syscall", _long(number(name)), *converted)


def mount(
    source: bytes | None, target: bytes, fstype: bytes | None, flags: int, data: bytes | None
) -> None:
    """mount(2)."""
    _call("mount", source, target, fstype, _long(flags), data)


def umount2(target: bytes, flags: int) -> None:
    """umount2(2)."""
    _call("umount2", target, flags)


def unshare(flags: int) -> None:
    """unshare(2); ``os`` has it from Python 3.12."""
    _call("unshare", flags)


def setns(fd: int, kind: int) -> None:
    """setns(2); ``os`` has it from Python 3.12."""
    _call("setns", fd, kind)


def prctl(option: int, *arguments: int) -> int:
    """prctl(2); missing arguments are zero, as most options demand."""
    return _call("prctl", option, *(_long(a) for a in (*arguments, 0, 0, 0, 0)[:4]))


def statfs_type(path: bytes) -> int:
    """``f_type`` of statfs(2), 32 bits."""
    # what libc writes to is ours alone; struct statfs has 120 bytes on 64-bit machines
    buffer = bytes(bytearray(512))
    _call("statfs", path, buffer)
    # f_type comes first: a long everywhere, but 32 bits on s390x
    width = 4 if os.uname().machine == "s390x" or sys.maxsize < 1 << 32 else 8
    return int.from_bytes(buffer[:width], sys.byteorder) & 0xFFFFFFFF
