"""Leaving the cgroup of whoever started us.

A server in a container's cgroup is throttled with it, frozen with it, and killed when that
container runs out of memory, with every other container's reads.
"""

from __future__ import annotations

import os

from clip_runc.config import is_personal
from clip_runc.linux.mountinfo import mounts

LEAF = "clip-runc"


def leave(pid: int = 0) -> list[str]:
    """Move ``pid`` (0: ourselves) to the root of each v1 hierarchy, to ``/clip-runc`` of v2.

    Where systemd runs us as a unit of our own we stay.  An ordinary user may go as far up as v2 was
    delegated to them.  Returns what could not be done.
    """
    if _is_own_unit():
        return []
    if is_personal():
        return _leave_by_delegation(pid)
    failed = []
    for mount in mounts():
        if mount.fstype == "cgroup":
            failed += _enter(mount.target, pid)
        elif mount.fstype == "cgroup2":
            failed += _enter(_leaf(mount.target), pid)
    return failed


def _leave_by_delegation(pid: int) -> list[str]:
    """To the highest cgroup above ours that is the user's (systemd: ``user@UID.service``)."""
    for mount in mounts():
        if mount.fstype == "cgroup2":
            top = delegated(mount.target, _own_path())
            if top:
                return _enter(_leaf(top), pid)
    return ["no cgroup above was delegated to this user"]


def _own_path() -> str:
    """Where we are in v2."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        return next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), "/")


def delegated(root: str, path: str) -> str:
    """The highest directory on ``path`` below ``root`` to which the user may move processes.

    Moving takes the right to write in what is above both places, so nothing in between counts.
    """
    at = root
    for name in path.strip("/").split("/"):
        at = f"{at}/{name}"
        if os.access(at, os.W_OK) and os.access(f"{at}/cgroup.procs", os.W_OK):
            return at
    return ""


def _is_own_unit() -> bool:
    with open("/proc/self/cgroup", encoding="ascii", errors="replace") as file:
        return any("/clipd.service" in line for line in file)


def _leaf(root: str) -> str:
    """Processes belong in leaves in v2, but for those in its true root."""
    path = f"{root}/{LEAF}"
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return path
    except OSError:
        return root
    return path


def _enter(path: str, pid: int) -> list[str]:
    try:
        fd = os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    try:
        os.write(fd, str(pid or os.getpid()).encode())
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    finally:
        os.close(fd)
    return []


def lower_oom_score(value: int = -900) -> bool:
    """Ask the kernel to kill others first; False where that is not permitted."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(value))
    except OSError:
        return False
    return True
