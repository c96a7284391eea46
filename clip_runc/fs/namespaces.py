"""Where an ordinary user's mounts are: a clipd's namespaces, or podman's.

A mount that was made in one mount namespace is in no other, so a program of the user has to go
there.  A namespace lives as long as somebody is in it: ours as long as a clipd or a container.
"""

from __future__ import annotations

import os

from clip_runc import personal
from clip_runc.fs.state import State
from clip_runc.linux import user_namespace


def living() -> list[int]:
    """A process in each namespace that the user may want, the best first.

    Where a clipd of theirs runs; of several in podman's, if that is one of them, else where it
    was started last.  Then podman's own, which keeps a process for nothing else.
    """
    podman = _podman()
    place = personal.namespace(str(podman)) if podman else ""
    served: list[tuple[bool, float, int]] = []
    base = personal.run_base()
    for name in os.listdir(base) if os.path.isdir(base) else ():
        path = f"{base}/{name}/clipd.json"
        for process in State.load(path).processes.values():
            if process.alive:
                served.append((name == place, os.stat(path).st_mtime, process.pid))
                break
    found = [pid for _, _, pid in sorted(served, reverse=True)]
    return [*found, podman] if podman else found


def _podman() -> int:
    """The process that keeps the namespaces of podman (its ``rootless.GetPausePidFile``), or 0."""
    for name in ("libpod/tmp/pause.pid", "libpod/pause.pid"):
        try:
            with open(f"{personal.runtime_dir()}/{name}", encoding="ascii") as file:
                pid = int(file.read())
            personal.namespace(str(pid))
        except (OSError, ValueError):
            continue
        return pid
    return 0


def enter() -> bool:
    """Go into the first of ``living``; False where there is none.  Exec should follow."""
    return any(map(user_namespace.join, living()))
