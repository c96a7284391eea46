"""The supervisor's handle of a server: started, watched, killed, started again."""

from __future__ import annotations

import os
import signal
import socket
import time

from clip_runc.errors import ServerError
from clip_runc.fs import mounting, protocol, start
from clip_runc.linux import fuse_device
from clip_runc.linux.processes import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from logging import Logger

    from clip_runc.config import Settings
    from clip_runc.fs.loop import Loop

PING_SECONDS = 1.0
SILENCE_SECONDS = 5.0
START_SECONDS = 60.0
_BACKOFF = (0.0, 0.0, 0.1, 0.3, 1.0, 2.0, 5.0)
_CRASHED = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_QUICK_SECONDS = 2.0


class ServerProcess:
    """At most one server at a time; ``pid`` is 0 while there is none.

    ``on_start`` is called with the pid and the device of each, ``on_ready`` when a new one waits
    for its images, ``on_message`` with each of its messages, ``on_death`` when one has gone,
    before the next is started.
    """

    def __init__(
        self, loop: Loop, log: Logger, settings: Settings, paths: list[str], *, init: bytes
    ) -> None:
        self._loop = loop
        self._log = log
        self._settings = settings
        self._paths = paths
        self._init = init
        self._resends = mounting.resends(settings, init)
        self._device = self._given = -1
        self._store = -1
        self._sock: socket.socket | None = None
        self._heard = 0.0
        self._begun = 0.0
        self._pinged = False
        self._stopping = False
        self.pid = 0
        self.ready = False
        self.serving = False
        self.restarts = 0
        self.failures = 0
        self.on_ready: Callable[[], None] = _nothing
        self.on_start: Callable[[int, int], None] = _ignore_start
        self.on_death: Callable[[], None] = _nothing
        self.on_message: Callable[[protocol.Message], None] = _ignore

    @property
    def condition(self) -> str:
        """In a word: ``serving``, ``starting`` or ``dead``."""
        return "serving" if self.serving else "starting" if self.pid else "dead"

    def begin(self, device: int, store: int) -> None:
        """Start the first one, and from now on keep one running."""
        self._device, self._store = device, store
        self._start()
        self._loop.every(PING_SECONDS, self._watch)

    def let_end(self) -> None:
        """From now on its end is meant: it ends when the mount goes, and no other follows."""
        self._stopping = True

    def stop(self) -> None:
        """Kill it and start no other."""
        self._stopping = True
        self.kill()

    def kill(self) -> None:
        """Kill it; unless ``stop`` was called another one follows."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)  # our child, not reaped yet: the pid is its own

    def send(self, message: protocol.Message, fds: Sequence[int] = ()) -> None:
        """Send to the server.  One that is dying loses it: ``on_ready`` sends all again."""
        if self._sock is None:
            return
        try:
            protocol.send(self._sock, message, fds)
        except OSError as error:
            self._log.warning("server %d takes no message: %s", self.pid, error)
            self.kill()

    def _start(self) -> None:
        if self._stopping:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        feed, init = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, feed, init:
            feed.send(self._init)
            self.pid = self._spawn(theirs.fileno(), init.fileno())
        if not self.pid:
            ours.close()
            return
        ours.setblocking(False)
        self._sock = ours
        self._begun = self._heard = time.monotonic()
        self._pinged = False
        self._loop.watch(ours.fileno(), self._readable)
        self._loop.child(self.pid, self._ended)
        self.on_start(self.pid, self._given)

    def _spawn(self, control: int, init: int) -> int:
        """Its pid, or 0; ``self._given`` is the number of its device."""
        own = -1
        try:
            own = -1 if self._resends else fuse_device.clone(self._device)
            self._given = self._device if own < 0 else own
            values = {"control": control, "init": init, "device": self._given, "store": self._store}
            argv = start.command("server", self._settings, self._paths, **values)
            return spawn(argv, list(values.values()), start.environment())
        except OSError as error:
            self._log.error("no server can be started: %s", error)
            self._again()
            return 0
        finally:
            if own >= 0:
                os.close(own)  # with the server's death the last one is to be closed

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            received = protocol.receive(self._sock)
        except (BlockingIOError, ServerError) as error:
            self._log.warning("server %d: %s", self.pid, error)
            return
        if received is None:
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            self._sock = None
            self.kill()  # it cannot be told anything any more
            return
        message, fds = received
        for fd in fds:  # an unprivileged process has none to give us
            os.close(fd)
        self._heard = time.monotonic()
        kind = message.get("op")
        if kind == "ready":
            self.ready = True
            self.on_ready()
        elif kind == "serving":
            self.serving = True
            seconds = self._heard - self._begun
            event = {"event": "server-serves", "pid": self.pid, "seconds": round(seconds, 3)}
            text = "server %d serves after %.2f s"
            self._log.info(text, self.pid, seconds, extra={"fields": event})
        elif kind == "pong":
            self._pinged = False
        else:
            self.on_message(message)

    def _watch(self) -> None:
        """One that says nothing is stopped, stuck or starved: another one may not be."""
        if not self.pid:
            return
        silent = time.monotonic() - self._heard
        if silent > (SILENCE_SECONDS if self.ready else START_SECONDS):
            self._log.error("server %d is silent for %.0f s: killed", self.pid, silent)
            self.kill()
        elif self.ready:
            if not self._pinged:
                self._heard = time.monotonic()
            self._pinged = True
            self.send({"op": "ping", "id": 0})

    def _ended(self, code: int) -> None:
        pid, self.pid = self.pid, 0
        lived = time.monotonic() - self._begun
        crashed = code >= 0 or -code in _CRASHED
        bad = not self.serving or (crashed and lived < _QUICK_SECONDS)
        self.failures = self.failures + 1 if bad else 0
        if self._sock is not None:
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            self._sock = None
        self.ready = self.serving = False
        if self._stopping:
            self._log.info("server %d ended", pid)
            return
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        event = {"event": "server-ended", "pid": pid, "how": how, "seconds": round(lived, 1)}
        text = "server %d ended after %.1f s: %s"
        self._log.warning(text, pid, lived, how, extra={"fields": event})
        self.on_death()
        self._again()

    def _again(self) -> None:
        self.restarts += 1
        self._loop.later(_BACKOFF[min(self.failures, len(_BACKOFF) - 1)], self._start)


def _nothing() -> None:
    return None


def _ignore_start(pid: int, device: int) -> None:
    return None


def _ignore(message: protocol.Message) -> None:
    return None
