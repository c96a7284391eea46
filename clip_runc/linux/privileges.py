"""Giving privileges up, for good, before touching what came from a registry."""

from __future__ import annotations

import ctypes
import os
import resource

from clip_runc.config import in_first_user_namespace
from clip_runc.linux import syscalls
from clip_runc.linux.confine import refuse_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME = 1, 4, 15
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522


def set_name(name: str) -> None:
    """Set the name of this thread that ps shows (the first 15 bytes count)."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    syscalls.prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def set_death_signal(signal_number: int) -> None:
    """Be sent ``signal_number`` when the thread that forked us ends; 0 for none."""
    syscalls.prctl(_PR_SET_PDEATHSIG, signal_number)


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor from 3 up that is not in ``keep``."""
    low = 3
    for fd in sorted({fd for fd in keep if fd >= 3}):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, max(low, resource.getrlimit(resource.RLIMIT_NOFILE)[1] + 1, 1 << 16))


def attainable(uid: int) -> int:
    """``uid`` if this process may become it, with the group of that number; else our own id.

    An ordinary process may become nobody else, and root of a user namespace only those whose ids
    are mapped: in one of a single id its processes stay what they are.
    """
    if os.geteuid() == 0 and all(_is_mapped(kind, uid) for kind in ("uid", "gid")):
        return uid
    return os.geteuid()


def _is_mapped(kind: str, number: int) -> bool:
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        ranges = [[int(word) for word in line.split()] for line in file]
    return any(first <= number < first + count for first, _, count in ranges)


def refuse_dumps(*, children: bool) -> None:
    """No core of this process is written: it holds credentials.  Ends with an exec.

    With ``children`` the limit is lowered too, for good, for us and all that we start.
    """
    if children:
        _limit(resource.RLIMIT_CORE, 0)
    syscalls.prctl(_PR_SET_DUMPABLE, 0)


def drop_privileges(
    uid: int, *, keep_fds: Iterable[int] = (), files: int = 4096, memory: int | None = None
) -> None:
    """Become ``uid`` (and the group of that number) with no way back.

    Descriptors but 0–2 and ``keep_fds`` are closed; supplementary groups and every
    capability set, the bounding one included, are empty; no_new_privs is set; the process
    cannot be dumped or traced by its own uid; a seccomp filter refuses what none of ours needs
    (``confine``).  ``files`` limits descriptors, ``memory`` the
    address space in bytes.  Where ``uid`` is not ``attainable`` the identity stays and the rest is
    done.  Raises ``OSError``, and ``PermissionError`` if root could be had back.
    """
    close_all_but(keep_fds)
    _limit(resource.RLIMIT_NOFILE, files)
    if memory is not None:
        _limit(resource.RLIMIT_AS, memory)
    becomes = attainable(uid)
    if os.geteuid() == 0:
        _drop_bounding_set()
    if becomes != os.geteuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    syscalls.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _clear_capabilities()
    syscalls.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    refuse_dumps(children=True)
    refuse_calls()
    if becomes or in_first_user_namespace():
        _refuse_way_back()


def _limit(which: int, value: int) -> None:
    """Lower a limit.  Hard limits are never raised: that wants CAP_SYS_RESOURCE."""
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _drop_bounding_set() -> None:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    for capability in range(last + 1):
        syscalls.prctl(_PR_CAPBSET_DROP, capability)


def _clear_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    syscalls.check(syscalls.libc.capset(header, nothing))


def _refuse_way_back() -> None:
    if 0 in os.getresuid() or 0 in os.getresgid():
        raise PermissionError("still root after dropping privileges")
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PermissionError("root could be had back after dropping privileges")


def limit_cpu(seconds: int) -> None:
    """End this process when it has used so much CPU time."""
    _limit(resource.RLIMIT_CPU, seconds)
