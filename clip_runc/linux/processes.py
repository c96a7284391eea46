"""Other processes: starting them with chosen descriptors, knowing them again, killing them."""

from __future__ import annotations

import os
import signal

from clip_runc.linux import syscalls
from clip_runc.linux.privileges import close_all_but

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_DEFAULT_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def spawn(argv: list[str], fds: Sequence[int], env: Mapping[str, str]) -> int:
    """Start ``argv`` with ``fds`` under their own numbers; its pid.  Raises ``OSError``.

    Everything else that is open stays close-on-exec.  For single-threaded processes.
    """
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        return os.posix_spawn(argv[0], argv, env, setsigmask=(), setsigdef=_DEFAULT_SIGNALS)
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)


def start_time(pid: int) -> int:
    """When ``pid`` was started, in clock ticks since boot; 0 if there is none.

    With the pid it names a process for good: proc_pid_stat(5), field 22.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def get_fd(pid: int, fd: int) -> int:
    """A duplicate of descriptor ``fd`` of another process (pidfd_getfd(2), Linux 5.6)."""
    handle = os.pidfd_open(pid)
    try:
        return syscalls.syscall("pidfd_getfd", handle, fd, 0)
    finally:
        os.close(handle)


def kill(pid: int, started: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal to ``pid`` if it is still the process that started at ``started``."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not started or start_time(pid) != started:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def in_child(function: Callable[[], bytes]) -> tuple[int, int]:
    """Run ``function`` in a forked child; its pid and the pipe that its bytes come from.

    For what may block in a loop that must not.  The caller waits for the pid.
    """
    receive, send = os.pipe()
    pid = os.fork()
    if pid:
        os.close(send)
        return pid, receive
    code = 1
    try:
        close_all_but([send])  # the locks among them: they are shared with us
        data = function()
        while data:
            data = data[os.write(send, data) :]
        code = 0
    except Exception as error:  # the boundary of a process: said where our log goes
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)
