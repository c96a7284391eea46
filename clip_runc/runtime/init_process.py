"""The container's first process, as runc remembers it: has it ended, may it be killed?

Out of runc's own ``state.json`` (libcontainer's ``BaseState``), read as bytes: the members that
matter are written by Go's encoder in one form, and nothing inside of a JSON string can look like
them, for its quotes are escaped.  What has another form (crun, youki) is no answer, and the hook
does all the work.
"""

from __future__ import annotations

import os
import time

from clip_runc.containers.state import get, start_time

# With a PID namespace of its own nothing of the container outlives its first process
# (pid_namespaces(7)), and its mounts have lost their last user.
_OWN_PIDS = b'{"type":"NEWPID","path":""}'
_PID, _STARTED = b'"init_process_pid":', b'"init_process_start":'
_HEAD = 512
_KILL = 9
_KILLED_SECONDS = 0.3


class InitProcess:
    """``pid`` and ``started`` (clock ticks since boot) of a container's first process."""

    __slots__ = ("pid", "started")

    def __init__(self, pid: int, started: int) -> None:
        self.pid = pid
        self.started = started

    def has_ended(self) -> bool:
        """Gone or a zombie, which is what runc calls stopped."""
        return start_time(self.pid) != self.started

    def kill(self) -> bool:
        """SIGKILL; True if it has ended a moment later.  A frozen one has not (cgroup v1)."""
        import _signal  # type: ignore[import-not-found]  # private; signal imports enum

        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return self.has_ended()
        try:
            if not self.has_ended():  # the pid is the process's own for as long as pidfd is open
                _signal.pidfd_send_signal(pidfd, _KILL)
        except OSError:
            pass
        finally:
            os.close(pidfd)
        pause = 0.0005
        deadline = time.monotonic() + _KILLED_SECONDS
        while not self.has_ended():
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause *= 1.5
        return True


def read_init(root: str, container_id: str, hook: str) -> InitProcess | None:
    """The first process of a container that is over when this is; None if we cannot tell.

    ``hook`` is the path of our poststop hook: others' hooks that run before it may want to see
    the root filesystem, so for a container that has one the answer is None.
    """
    data = get(f"{root}/{container_id}/state.json") or b""
    if _OWN_PIDS not in data or _first_hook(hook) not in data:
        return None
    pid, started = (_number(data[:_HEAD], name) for name in (_PID, _STARTED))
    return InitProcess(pid, started) if pid > 0 and started > 0 else None


def _first_hook(path: str) -> bytes:
    return f'"poststop":[{{"path":"{path}"'.encode("utf-8", "surrogateescape")


def _number(data: bytes, name: bytes) -> int:
    """The number after ``name``; 0 for none."""
    digits = data.partition(name)[2].partition(b",")[0]
    return int(digits) if digits.isdigit() and len(digits) < 20 else 0
