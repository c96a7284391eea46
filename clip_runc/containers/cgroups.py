"""Cgroups of a container whose runtime was killed before it knew of it.

runc makes a container's cgroups before it writes down that there is a container; killed in between,
it leaves them, and its own ``delete`` knows nothing of them.  What was not there when the shim came
and has the container's name is the container's; the kernel removes none that has a process in it.
"""

from __future__ import annotations

import errno
import os
import time

_ROOT = "/sys/fs/cgroup"
_SECONDS = 1.0


def to_come(path: str, container_id: str, own: str = "/proc/self/cgroup") -> list[str]:
    """The directories that the runtime will make for ``linux.cgroupsPath``, which are not there.

    None for systemd's form of it (``slice:prefix:name``): systemd removes a scope that is empty.
    ``own`` says in which cgroups the runtime will be, below which a relative path is.
    """
    if path.count(":") == 2:
        return []
    try:
        fd = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        lines = os.read(fd, 1 << 16).decode("utf-8", "surrogateescape").splitlines()
    finally:
        os.close(fd)
    found = []
    for line in lines:
        _, controllers, parent = line.split(":", 2)
        for directory in _below(_mount(controllers), parent, path, container_id):
            if not os.path.lexists(directory) and os.path.isdir(os.path.dirname(directory)):
                found.append(directory)
    return found


def _mount(controllers: str) -> str:
    """Where a hierarchy is mounted, as in a line of ``/proc/PID/cgroup``."""
    if controllers:
        return f"{_ROOT}/{controllers.removeprefix('name=')}"
    unified = f"{_ROOT}/unified"
    return unified if os.path.isdir(unified) else _ROOT


def _below(mount: str, parent: str, path: str, container_id: str) -> list[str]:
    inner = os.path.normpath(path or container_id)
    if inner.startswith((".", "//")):
        return []
    if inner.startswith("/"):
        return [f"{mount}{inner}"]
    # runc looks below its own cgroup for a relative path, crun at the top
    return list(dict.fromkeys([f"{mount}{parent.rstrip('/')}/{inner}", f"{mount}/{inner}"]))


def remove(directories: list[str]) -> list[str]:
    """Remove those that are there and have no process; what could not be, in words.

    A process that was killed needs a moment to be gone.
    """
    end = time.monotonic() + _SECONDS
    return [problem for one in directories if (problem := _remove(one, end))]


def _remove(directory: str, end: float) -> str:
    if not (os.path.isdir(directory) and directory.startswith(f"{_ROOT}/")):
        return ""
    while True:
        try:
            for path, _, _ in os.walk(directory, topdown=False):
                os.rmdir(path)
            return ""
        except FileNotFoundError:
            return ""
        except OSError as error:
            if error.errno != errno.EBUSY:
                return f"{directory}: {error.strerror}"
            if time.monotonic() > end:
                return ""  # somebody else's by now, or one of the container's that lives on
        time.sleep(0.02)
