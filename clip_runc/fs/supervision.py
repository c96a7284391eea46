"""What the supervisor does while it lives: a server, a keeper, clients, and the end."""

from __future__ import annotations

import json
import logging
import os

from clip_runc.errors import ServerError
from clip_runc.fs import handover, linger, protocol, start
from clip_runc.fs.clients import Clients, Connection
from clip_runc.fs.completing import Completing
from clip_runc.fs.forgetting import Forgetting
from clip_runc.fs.images import Images
from clip_runc.fs.keeping import Keeping
from clip_runc.fs.loop import Loop
from clip_runc.fs.replays import Replays
from clip_runc.fs.requests import Requests
from clip_runc.fs.server_process import ServerProcess
from clip_runc.fs.state import Process, State
from clip_runc.fs.watches import Watches
from clip_runc.linux.mount import unmount
from clip_runc.linux.processes import in_child, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from clip_runc.config import Settings
    from clip_runc.fs.managed import Given, Managed
    from clip_runc.linux.files import lock

log = logging.getLogger("clip_runc.clipd")

_DEATH_SECONDS = 5.0
# after a start: the container that it is for is made first
_GC_SECONDS = 1.0


class Supervisor:
    """Holds everything together.  ``begin``, then ``loop.run()``, then it is over."""

    def __init__(
        self,
        settings: Settings,
        paths: list[str],
        state: State,
        held: lock,
        manager: Managed,
    ) -> None:
        """``held`` is the lock that makes us the only one; it goes with us."""
        self._held = held
        self._manager = manager
        self._activated = False
        self._settings = settings
        self._state = state
        self.loop = Loop()
        self._paths = paths
        self._device = -1
        self._stopping = False
        self._server = ServerProcess(self.loop, log, settings, paths, init=state.init)
        self._images = Images(state, self._server, log)
        self._lingering = linger.Lingering(self.loop, log, settings, state, self._images)
        self._keeping = Keeping(self.loop, log, settings, paths, state)
        self._forgetting = Forgetting(self.loop, settings)
        on_attach = (
            Replays(self.loop, self._images, settings).begin,
            Completing(self.loop, self._images, settings, log).begin,
        )
        self._watches = Watches(settings, self.loop, self._judge)
        own = {"stop": self._stop_asked, "upgrade": self._upgrade, "watch": self._watch}
        self._requests = Requests(
            self.loop, settings, state, self._server, self._images, on_attach, self._keeping, own
        )
        self._server.on_ready = self._images.server_ready
        self._server.on_start = self._note_server
        self._server.on_death = self._images.server_died
        self._server.on_message = self._from_server

    def begin(self, device: int, listener: socket.socket, given: Given) -> None:
        """Start the others and listen."""
        self._device, self._listener, self._activated = device, listener, given.activated
        self._note("supervisor", os.getpid(), device)
        store = os.open(self._settings.store_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if self._manager.holds:
            self._keeping.leave_to_manager()
        else:
            self._keeping.begin(device, listener.fileno(), given.keeper, given.keeper_pid)
        self._server.begin(device, store)
        Clients(self.loop, listener, self._requests.handle)
        self._watches.offer()
        self._lingering.begin()
        self.loop.later(_GC_SECONDS, self._collect)
        self._manager.begin(self.loop, self._describe)

    def _describe(self) -> str:
        """For ``systemctl status``."""
        return f"server {self._server.condition}, images: {len(self._state.images)}"

    def _note(self, role: str, pid: int, device: int) -> None:
        self._state.processes[role] = Process(pid, device=device)
        self._state.save()

    def _note_server(self, pid: int, device: int) -> None:
        self._note("server", pid, device)

    # What clients ask of us ourselves.

    def _stop_asked(self, connection: Connection, message: protocol.Message) -> None:
        connection.answer({})
        self.stop()

    def _upgrade(self, connection: Connection, message: protocol.Message) -> None:
        """Another supervisor, of the code that the message names, takes over; we go.

        Only once it has said that it is able to run: until then nothing is given up, and the
        server serves on until the new supervisor has taken everything.
        """

        def loaded(problem: str) -> None:
            if problem:
                connection.refuse(ServerError(f"the new clipd does not start: {problem}"))
                return
            log.info("handing over to a new supervisor")
            self._manager.hand_over(pid)
            connection.answer({"supervisor": {"pid": os.getpid()}})
            self._hand_over_watches()
            self._keeping.stop()
            self.loop.stop()

        if self._stopping:
            raise ServerError("clipd is stopping")
        pid = handover.offer(
            self.loop, message, self._device, self._listener.fileno(), loaded,
            activated=self._activated, environ=self._manager.environment(),
        )  # fmt: skip

    def _watch(self, connection: Connection, message: protocol.Message) -> None:
        """No answer: whoever asks is about to become runc."""
        self._watches.begin(message, connection.take_fd())

    def _hand_over_watches(self) -> None:
        self._watches.hand_over(lambda message: json.dumps(message).encode())

    # What the server asks.

    def _from_server(self, message: protocol.Message) -> None:
        if message.get("op") == "credentials":
            self._look_up(message)
        elif message.get("op") == "quiet":
            self._forgetting.quiet(message)
        else:
            self._images.answered(message)

    def _look_up(self, message: protocol.Message) -> None:
        """In a child: a credential helper may take seconds."""
        registry, repository = str(message.get("registry")), str(message.get("repository"))

        def find() -> bytes:
            from clip_runc.registry.credentials import lookup

            found = lookup(registry, repository, self._settings.credentials_dir)
            return json.dumps(found.to_dict() if found else None).encode()

        def done(code: int, data: bytes) -> None:
            if code:
                log.error("credentials for %s cannot be looked up (see above)", registry)
            found = json.loads(data) if code == 0 else None
            self._server.send({"op": "credentials", "id": message.get("id"), "credentials": found})

        self.loop.output(*in_child(find), done)

    # What time brings.

    def _collect(self) -> None:
        """Once: what containers left that died when nobody of ours was there, as in a reboot.

        In a process of its own, of a room above this one.
        """
        if self._stopping:
            return
        self._run("containers.gc")

    def _judge(self, message: protocol.Message) -> None:
        """A create has ended, and its runtime does not seem to know its container."""
        wanted = ("key", "root", "container", "creator")
        self._run("runtime.cleanup", **{name: message.get(name) for name in wanted})

    def _run(self, module: str, **values: object) -> None:
        argv = start.command(module, self._settings, self._paths, **values)
        try:
            pid = spawn(argv, [], start.environment())
        except OSError as error:
            log.warning("%s cannot be started: %s", module, error)
            return
        self.loop.child(pid, lambda code: None)

    # The end.

    def leave(self) -> None:
        """End; the service manager, which is about to start another clipd, has the mount."""
        if self._stopping or not self._manager.holds:
            self.stop()
            return
        self._stopping = True
        log.info("leaving the mount to the next clipd", extra=_event("clipd-leaving"))
        self._server.stop()
        if self._activated:
            self._hand_over_watches()
        self._manager.leave()
        self.loop.stop()

    def stop(self) -> None:
        """Unmount, end the others, have ``loop.run`` return."""
        if self._stopping:
            return
        self._stopping = True
        log.info("stopping", extra=_event("clipd-stopping"))
        self._watches.withdraw()
        if not self._activated:
            _unlink(self._settings.socket)
        self._keeping.stop()
        self._server.let_end()
        settings = self._settings

        def release() -> bytes:
            for name in linger.mounted(settings):
                linger.release(settings, name)
            unmount(settings.fuse_dir)
            return b""

        self.loop.output(*in_child(release), lambda code, data: self._finish())
        self.loop.later(_DEATH_SECONDS, self._finish)

    def _finish(self) -> None:
        self._server.stop()
        self._state.remove()
        self._manager.end()
        self.loop.stop()


def _event(name: str) -> dict[str, object]:
    """What makes a record of the log an event (``clip_runc.log``)."""
    return {"fields": {"event": name, "pid": os.getpid()}}


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
