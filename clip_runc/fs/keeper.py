"""The other holder of the mount: a process that does nothing until the supervisor dies.

It has the device and the listening socket.  When the socket pair to the supervisor closes, or
has been silent for too long, it starts another supervisor and hands them over; when it dies
itself, the supervisor starts another keeper.  So any one of them, and either with the server,
may be killed: clients wait in the listening socket's queue, readers in the kernel's.
"""

from __future__ import annotations

import os
import socket
import time

from clip_runc.fs import start
from clip_runc.linux.cgroups import lower_oom_score
from clip_runc.linux.privileges import close_all_but, set_name
from clip_runc.linux.processes import kill, spawn, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings

BYE = b"bye"
ALIVE = b"alive"
BEAT_SECONDS = 2.0
_SILENCE_SECONDS = 20.0
_PAUSE_SECONDS = 0.5


def run(
    settings: Settings, paths: list[str], *, device: int, listener: int, sock: int, supervisor: int
) -> None:
    """Keep ``device`` and ``listener`` until the supervisor (a pid) says goodbye."""
    close_all_but([device, listener, sock])
    for fd in (device, listener, sock):
        os.set_inheritable(fd, False)
    set_name("clipd-keeper")
    lower_oom_score()
    watched = socket.socket(fileno=sock)
    while not _watch(watched, supervisor):
        watched.close()
        watched, supervisor = _revive(settings, paths, device, listener)


def _watch(sock: socket.socket, supervisor: int) -> bool:
    """True for an orderly end, False when the supervisor is dead (made so if need be)."""
    started = start_time(supervisor)
    sock.settimeout(_SILENCE_SECONDS)
    try:
        while message := sock.recv(16):
            if message == BYE:
                return True
    except TimeoutError:
        kill(supervisor, started)
    except ConnectionError:
        return False
    return False


def _revive(
    settings: Settings, paths: list[str], device: int, listener: int
) -> tuple[socket.socket, int]:
    while True:
        _reap()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handed = {"device": device, "listener": listener, "keeper": theirs.fileno()}
        argv = start.command("supervisor", settings, paths, keeper_pid=os.getpid(), **handed)
        try:
            with theirs:
                pid = spawn(argv, list(handed.values()), start.environment())
        except OSError:
            ours.close()
            time.sleep(_PAUSE_SECONDS)  # no memory or no processes left: nothing else to do
            continue
        return ours, pid


def _reap() -> None:
    """Wait for the children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return
