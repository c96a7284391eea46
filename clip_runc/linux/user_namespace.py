"""An ordinary user's own user and mount namespace: made, or one of theirs entered.

The ids are those that podman gives its own: the user is root, their subordinate ids
(``/etc/subuid``, subuid(5)) follow from 1 on.  So what lies on disk belongs to the same ids
whichever of the two made it.  Only newuidmap(1) and newgidmap(1) may map more than one id.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import subprocess

from clip_runc.errors import MountFailed
from clip_runc.linux import syscalls

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_SUBORDINATE = {"uid": "/etc/subuid", "gid": "/etc/subgid"}
_HINTS = {
    errno.EPERM: "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns"
    " or a container's seccomp forbids it",
    errno.EACCES: "kernel.apparmor_restrict_unprivileged_userns or SELinux forbids it",
    errno.ENOSPC: "user.max_user_namespaces and user.max_mnt_namespaces (sysctl) are used up, or 0",
    errno.ENOSYS: "the kernel has no user namespaces",
    errno.EINVAL: "the kernel has no user namespaces",
}


def make() -> str:
    """Become root of a new user namespace with mounts of its own; why it has one id, if it has.

    For a process of one thread, which should exec afterwards.  Raises ``MountFailed``.
    """
    ids = {"uid": os.geteuid(), "gid": os.getegid()}
    lines = {kind: id_map(kind, ids[kind]) for kind in ids}
    told, tell = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(tell)
        os._exit(_map_when(told, parent, lines))
    os.close(told)
    try:
        syscalls.unshare(_NEWUSER | _NEWNS)
        os.write(tell, b"1")
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        message = f"a user namespace cannot be made: {error.strerror}"
        raise MountFailed(message, hint, error.errno or 0) from None
    finally:
        os.close(tell)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return ""
    _map_one(ids)
    if any(len(found) < 2 for found in lines.values()):
        return "/etc/subuid and /etc/subgid have no ids for this user"
    return "newuidmap and newgidmap (package uidmap) are missing or refuse"


def id_map(kind: str, own: int) -> list[tuple[int, int, int]]:
    """What the namespace's ids are outside: first inside, first outside, how many."""
    lines, inside = [(0, own, 1)], 1
    for start, count in subordinate(kind):
        lines.append((inside, start, count))
        inside += count
    return lines


def subordinate(kind: str) -> list[tuple[int, int]]:
    """The ranges that the user was given, first and how many, of ``uid`` or ``gid``."""
    uid = os.geteuid()
    names = {str(uid)}
    try:
        names.add(pwd.getpwuid(uid).pw_name)
        with open(_SUBORDINATE[kind], encoding="utf-8", errors="replace") as file:
            rows = [line.strip().split(":") for line in file]
    except (KeyError, OSError):
        return []
    good = [row for row in rows if len(row) == 3 and row[0] in names]
    return [(int(row[1]), int(row[2])) for row in good if row[1].isdigit() and row[2].isdigit()]


def _map_when(told: int, process: int, lines: dict[str, list[tuple[int, int, int]]]) -> int:
    """In a child that stays outside: have ``process`` mapped as soon as it is in its namespace."""
    if not os.read(told, 1):
        return 1
    for kind, ranges in lines.items():
        program = shutil.which(f"new{kind}map")
        if program is None or len(ranges) < 2:
            return 1
        numbers = [str(number) for one in ranges for number in one]
        done = subprocess.run([program, str(process), *numbers], check=False, capture_output=True)
        if done.returncode:
            return 1
    return 0


def _map_one(ids: dict[str, int]) -> None:
    """What needs no privileges; a map that is there already stays."""
    for kind, own in ids.items():
        try:
            if kind == "gid":
                _write("/proc/self/setgroups", "deny")
            _write(f"/proc/self/{kind}_map", f"0 {own} 1")
        except OSError as error:
            if error.errno != errno.EPERM:
                raise MountFailed(f"the user's ids cannot be mapped: {error.strerror}") from None


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return "/"


def join(process: int) -> bool:
    """Enter the user and mount namespace of a process of ours; False where that is not possible.

    The working directory stays, if it is there too.  As for ``make``, exec should follow.
    """
    kinds = {"user": _NEWUSER, "mnt": _NEWNS}
    here = _working_directory()
    handles = []
    try:
        for kind in kinds:
            path = f"/proc/{process}/ns/{kind}"
            handles.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        if os.path.samefile("/proc/self/ns/user", f"/proc/{process}/ns/user"):
            return False
        for handle, flag in zip(handles, kinds.values(), strict=True):
            syscalls.setns(handle, flag)
    except OSError:
        return False
    finally:
        for handle in handles:
            os.close(handle)
    try:
        os.chdir(here)
    except OSError:
        os.chdir("/")
    return True
