"""A process that sees a create or delete end, and takes down what nobody else would.

The shim becomes runc, so somebody else has to notice that runc failed before its container
existed: a bad spec, an id in use, crun's ``executable not found`` (crun runs no poststop hook
then).  The watcher is forked off just before the exec, holds nothing of the caller's (descriptors,
session, working directory), and ends when the container exists or the runtime has ended; for
``runc run`` that is long before the container's end.

The call costs the shim 1.0 to 1.8 ms with the modules of a create loaded (medians of three runs of
``bench/passthrough --imports`` and its forerunner, on two cores that had other work).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_POLL = 0.02
_LAST_POLL = 1.0


def watch(happened: Callable[[], bool], finish: Callable[[], object], *, follow: bool) -> None:
    """Fork a process that waits for the end of this one, and then calls ``finish``.

    ``follow``: it also ends, without ``finish``, as soon as ``happened`` is true while we live.
    Where no process can be made, nothing is watched; ``gc`` sweeps.
    """
    try:
        pidfd = os.pidfd_open(os.getpid())
        child = os.fork()
    except OSError:
        return
    if child:
        os.close(pidfd)
        os.waitpid(child, 0)
        return
    try:
        # Twice, so that runc has no child that it does not know.
        if os.fork():
            os._exit(0)
        pidfd = _let_go(pidfd)
        if _wait(pidfd, happened if follow else None):
            finish()
    finally:
        os._exit(0)


def _let_go(pidfd: int) -> int:
    """Hold nothing but ``pidfd``: the caller may wait for the end of its pipes."""
    null = os.open("/dev/null", os.O_RDWR)
    kept = 3
    # both may sit on numbers below 3 where the caller closed its stdio
    pidfd_high, null_high = _above(pidfd), _above(null)
    for number in (0, 1, 2):
        os.dup2(null_high, number)
    os.dup2(pidfd_high, kept, inheritable=False)
    _close_from(kept + 1)
    os.setsid()
    os.chdir("/")
    return kept


def _above(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)


def _close_from(first: int) -> None:
    """Close every open descriptor from ``first`` on.

    Listed, not counted up: with a limit of a billion open files a loop over all numbers, where
    close_range(2) is missing, takes minutes.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= first:
            try:
                os.close(int(name))
            except OSError:  # the one that listed the directory
                continue


def _wait(pidfd: int, happened: Callable[[], bool] | None) -> bool:
    """True when the process has ended, False when ``happened`` came first."""
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    pause = _FIRST_POLL
    while True:
        if poll.poll(None if happened is None else pause * 1000):
            return True
        if happened is not None and happened():
            return False
        pause = min(pause * 1.5, _LAST_POLL)
