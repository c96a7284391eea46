"""Becoming a daemon that belongs to nobody: session, cgroup, descriptors, log, directories."""

from __future__ import annotations

import logging
import os
import select
import time

from clip_runc.errors import ServerError
from clip_runc.linux.cgroups import leave, lower_oom_score
from clip_runc.linux.files import lock, make_private_dir
from clip_runc.linux.privileges import attainable, close_all_but, refuse_dumps, set_name
from clip_runc.linux.processes import kill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings
    from clip_runc.fs.state import State

_LOG_BYTES = 8 << 20
_LOCK_SECONDS = 10.0


def detach(settings: Settings, keep: list[int]) -> None:
    """Leave the caller's session, process group, directory and descriptors (but ``keep``).

    The caller's child ends here, so that it can be waited for; what returns is its child.
    """
    close_all_but(keep)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    log = _open_log(f"{settings.run_dir}/clipd.log")
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    for fd in (1, 2):
        os.dup2(log, fd)
    for fd in {null, log} - {0, 1, 2}:
        os.close(fd)


def _open_log(path: str) -> int:
    """Appended to by all our processes; the one before is kept when it has grown."""
    try:
        if os.stat(path, follow_symlinks=False).st_size > _LOG_BYTES:
            os.rename(path, f"{path}.1")
    except FileNotFoundError:
        pass
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def settle(log: logging.Logger, *, managed: bool = False) -> None:
    """Out of the caller's cgroup, last to be killed for memory, no cores, with a name.

    A service manager has given us a cgroup of our own: there we stay.
    """
    set_name("clipd")
    refuse_dumps(children=True)
    for problem in [] if managed else leave():
        log.warning("stays in the cgroup that it was started in: %s", problem)
    if not lower_oom_score():
        log.info("the OOM score may not be lowered here")


def make_directories(settings: Settings) -> None:
    """What the processes of clipd need; the store belongs to the server."""
    make_private_dir(settings.run_dir, 0o711)
    make_private_dir(settings.lock_dir)
    make_private_dir(settings.control_dir)
    owner = attainable(settings.server_uid)
    make_private_dir(settings.store_dir, 0o700, (owner, owner))


def displace(state: State, log: logging.Logger) -> None:
    """Kill a clipd that a client started before the service manager did, the keeper first.

    Its server lives on, and with it the mount.
    """
    for role in ("keeper", "supervisor"):
        found = state.processes.get(role)
        if found is not None and kill(found.pid, found.started):
            log.warning("takes over from %s %d, which no service manager started", role, found.pid)


def only_one(settings: Settings, starter: int = -1) -> lock:
    """Be the only supervisor of this run directory, for as long as we live.

    Waits a little for one that is dying.  Raises ``ServerError`` for one that is not, and where
    the reader of the pipe ``starter`` was killed: else we would come up after somebody's
    ``clipctl stop``, wanted by nobody.
    """
    held = lock(f"{settings.lock_dir}/clipd", wait=False)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        if starter >= 0 and _hung_up(starter):
            raise ServerError("whoever started clipd is gone")
        try:
            return held.__enter__()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ServerError(
                    f"another clipd runs for {settings.run_dir}", "end it with clipctl stop"
                ) from None
            time.sleep(0.05)


def _hung_up(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))
