"""clipd as a service of systemd: it listens for us, holds the mount, and hears how we are.

The manager has the listening socket (a socket unit) and a duplicate of the FUSE device (its file
descriptor store).  Whoever of ours is killed, and all of us at once: clients wait in the socket's
queue, readers in the kernel's, and the next clipd is handed both.  What else it needs is in
``clipd.json``.  So there is no keeper; one would start a clipd that the manager does not know.
"""

from __future__ import annotations

import os
import signal
import socket

from clip_runc.errors import ConfigError
from clip_runc.linux import service_manager
from clip_runc.linux.service_manager import ServiceManager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger

    from clip_runc.config import Settings
    from clip_runc.fs.loop import Loop

# As in the units: FileDescriptorName= of the socket, RestartKillSignal= of the service.
SOCKET = "control"
LEAVE = signal.SIGUSR1
DEVICE = "fuse"
# Exit status that the unit does not answer with a restart: the next one would end the same way,
# and nothing is lost by waiting for somebody who asks.
HOPELESS = 78  # EX_CONFIG

_TELL_SECONDS = 2.0
_BARRIER_SECONDS = 5.0


class Managed:
    """What the supervisor says to its manager; where there is none it goes nowhere."""

    def __init__(self, log: Logger, manager: ServiceManager) -> None:
        self._log = log
        self._manager = manager
        self._status = ""
        self.holds = False

    def hold(self, device: int, *, fresh: bool) -> None:
        """Have the device kept, instead of what was kept before where it is ``fresh``.

        ``holds`` says whether a keeper is not needed.
        """
        if fresh:
            self._manager.forget(DEVICE)
        self.holds = self._manager.keep(DEVICE, device)
        if self._manager.keeps and not self.holds:
            self._log.warning("the service manager takes no descriptor: a keeper has it")

    def begin(self, loop: Loop, status: Callable[[], str]) -> None:
        """We serve.  From now on it hears that we live, and ``status`` where that changes."""
        if not self._manager.present:
            return
        self._tell(status(), READY=1)
        watched = self._manager.watchdog
        seconds = min(_TELL_SECONDS, watched / 3) if watched else _TELL_SECONDS
        loop.every(seconds, lambda: self._tell(status()))

    def _tell(self, status: str, **values: object) -> None:
        if self._manager.watchdog:
            values["WATCHDOG"] = 1
        if status != self._status:
            values["STATUS"] = self._status = status
        if values:
            self._manager.tell(**values)

    def environment(self) -> dict[str, str]:
        """For a supervisor that is to take over."""
        return self._manager.environment()

    def hand_over(self, pid: int) -> None:
        """``pid`` is the main process from here on; it will be ready."""
        if self._manager.present:
            self._manager.reloading(MAINPID=pid)
            self._manager.barrier(_BARRIER_SECONDS)

    def leave(self) -> None:
        """We end, and the mount stays with the manager."""
        self._manager.tell(STOPPING=1, STATUS="restarting; the mount is kept")

    def end(self) -> None:
        """We end, and the mount with us."""
        if self._manager.present:
            self._manager.forget(DEVICE)
            self._manager.tell(STOPPING=1, STATUS="unmounted")
            self._manager.barrier(_BARRIER_SECONDS)


class Given:
    """What a supervisor is started with: descriptors (-1: none), and by whom."""

    def __init__(
        self,
        *,
        ready: int = -1,
        devices: list[int] | None = None,
        listener: int = -1,
        keeper: int = -1,
        keeper_pid: int = 0,
        activated: bool = False,
        displaces: bool = False,
    ) -> None:
        """``activated``: the listener is the manager's, its path too.

        ``displaces``: another clipd has to go, one that a client started beside the unit.
        """
        self.ready = ready
        self.devices = devices or []
        self.listener = listener
        self.keeper = keeper
        self.keeper_pid = keeper_pid
        self.activated = activated
        self.displaces = displaces


def given(manager: ServiceManager) -> Given:
    """What the manager hands us.  For the process that it started, once."""
    found = service_manager.take(os.environ, os.getpid())
    listeners, devices = found.pop(SOCKET, []), found.pop(DEVICE, [])
    for fd in [*listeners[1:], *(fd for fds in found.values() for fd in fds)]:
        os.close(fd)
    return Given(
        devices=devices,
        listener=listeners[0] if listeners else -1,
        activated=bool(listeners),
        displaces=manager.present,
    )


def check_address(listener: int, settings: Settings) -> None:
    """Do clients look for the socket where the manager listens?  Raises ``ConfigError``."""
    with socket.socket(fileno=os.dup(listener)) as sock:
        bound = sock.getsockname()
    if bound != settings.socket:
        raise ConfigError(
            f"the socket unit listens at {bound}, and run_dir = {settings.run_dir!r}",
            "write the units again: clipctl install --systemd; systemctl daemon-reload",
        )
