"""The supervisor's side of the keeper: there is always one, and it hears that we live."""

from __future__ import annotations

import os
import socket

from clip_runc.fs import keeper, start
from clip_runc.fs.state import Process
from clip_runc.linux.processes import kill, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger

    from clip_runc.config import Settings
    from clip_runc.fs.loop import Loop
    from clip_runc.fs.state import State

_PAUSE_SECONDS = 0.2


class Keeping:
    """Starts a keeper when there is none, or takes the one that started us."""

    def __init__(
        self, loop: Loop, log: Logger, settings: Settings, paths: list[str], state: State
    ) -> None:
        self._loop = loop
        self._log = log
        self._settings = settings
        self._paths = paths
        self._state = state
        self._fds = (-1, -1)
        self._sock: socket.socket | None = None
        self._stopping = False
        self.holder = "keeper"
        self.pid = 0

    def leave_to_manager(self) -> None:
        """Start none: the service manager holds what a keeper would."""
        self.holder = "service manager"
        self._state.processes.pop("keeper", None)
        self._state.save()

    def begin(self, device: int, listener: int, sock: int, pid: int) -> None:
        """Watch the keeper at the other end of ``sock``, or start one where that is -1."""
        self._fds = (device, listener)
        known = self._state.processes.get("keeper")
        if known is not None and known.pid != pid:
            kill(known.pid, known.started)
        if sock >= 0:
            self._watch(socket.socket(fileno=sock), pid)
        else:
            self._start()
        self._loop.every(keeper.BEAT_SECONDS, self._beat)

    def stop(self) -> None:
        """Have it end."""
        self._stopping = True
        if self._sock is not None:
            self._say(keeper.BYE)

    def _start(self) -> None:
        if self._stopping:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        device, listener = self._fds
        fds = {"device": device, "listener": listener, "sock": theirs.fileno()}
        argv = start.command("keeper", self._settings, self._paths, supervisor=os.getpid(), **fds)
        try:
            with theirs:
                pid = spawn(argv, list(fds.values()), start.environment())
        except OSError as error:
            ours.close()
            self._log.error("no keeper can be started: %s", error)
            self._loop.later(_PAUSE_SECONDS, self._start)
            return
        self._loop.child(pid, lambda code: None)
        self._watch(ours, pid)

    def _watch(self, sock: socket.socket, pid: int) -> None:
        sock.setblocking(False)
        self._sock, self.pid = sock, pid
        self._state.processes["keeper"] = Process(pid, device=self._fds[0])
        self._state.save()
        self._loop.watch(sock.fileno(), self._gone)

    def _gone(self) -> None:
        """It never says anything: readable means that it is dead."""
        assert self._sock is not None
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._sock, self.pid = None, 0
        if not self._stopping:
            self._log.warning("the keeper died; starting another")
            self._loop.later(_PAUSE_SECONDS, self._start)

    def _beat(self) -> None:
        if self._sock is not None:
            self._say(keeper.ALIVE)

    def _say(self, what: bytes) -> None:
        assert self._sock is not None
        try:
            self._sock.send(what)
        except OSError:
            return  # dead: the loop will see; or stopped, with a full queue, and no worse
