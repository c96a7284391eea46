"""clipd: keeps the FUSE mount and its images, whoever dies.  Root; standard library only.

Parses nothing that came from a registry, and keeps no file of its own mount open: closing
one would wait for a server that may not be there.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time

from clip_runc import config
from clip_runc import log as logs
from clip_runc.errors import ClipError, ServerError
from clip_runc.fs import daemon, handover, linger, mounting, protocol, start
from clip_runc.fs.clients import Clients, Connection, listen
from clip_runc.fs.completing import Completing
from clip_runc.fs.images import Images
from clip_runc.fs.keeping import Keeping
from clip_runc.fs.loop import Loop
from clip_runc.fs.replays import Replays
from clip_runc.fs.requests import Requests
from clip_runc.fs.server_process import ServerProcess
from clip_runc.fs.state import Process, State
from clip_runc.linux.files import lock
from clip_runc.linux.mount import unmount
from clip_runc.linux.processes import in_child, kill, spawn

log = logging.getLogger("clip_runc.clipd")

_DEATH_SECONDS = 5.0
# after a start: the container that it is for is made first
_GC_SECONDS = 1.0


class Supervisor:
    """Holds everything together.  ``begin``, then ``loop.run()``, then it is over."""

    def __init__(
        self, settings: config.Settings, paths: list[str], state: State, held: lock
    ) -> None:
        """``held`` is the lock that makes us the only one; it goes with us."""
        self._held = held
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
        on_attach = (
            Replays(self.loop, self._images, settings).begin,
            Completing(self.loop, self._images, settings, log).begin,
        )
        own = {"stop": self._stop_asked, "upgrade": self._upgrade}
        self._requests = Requests(
            self.loop, settings, state, self._server, self._images, on_attach, self._keeping, own
        )
        self._server.on_ready = self._images.server_ready
        self._server.on_start = self._note_server
        self._server.on_death = self._images.server_died
        self._server.on_message = self._from_server

    def begin(self, device: int, listener: socket.socket, sock: int, keeper_pid: int) -> None:
        """Start the others and listen."""
        self._device, self._listener = device, listener
        self._note("supervisor", os.getpid(), device)
        store = os.open(self._settings.store_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._keeping.begin(device, listener.fileno(), sock, keeper_pid)
        self._server.begin(device, store)
        Clients(self.loop, listener, self._requests.handle)
        self._lingering.begin()
        self.loop.later(_GC_SECONDS, self._collect)

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
            connection.answer({"supervisor": {"pid": os.getpid()}})
            self._keeping.stop()
            self.loop.stop()

        if self._stopping:
            raise ServerError("clipd is stopping")
        handover.offer(self.loop, message, self._device, self._listener.fileno(), loaded)

    # What the server asks.

    def _from_server(self, message: protocol.Message) -> None:
        if message.get("op") == "credentials":
            self._look_up(message)
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
        argv = start.command("containers.gc", self._settings, self._paths)
        try:
            pid = spawn(argv, [], start.environment())
        except OSError as error:
            log.warning("gc cannot be started: %s", error)
            return
        self.loop.child(pid, lambda code: None)

    # The end.

    def stop(self) -> None:
        """Unmount, end the others, have ``loop.run`` return."""
        if self._stopping:
            return
        self._stopping = True
        log.info("stopping", extra=_event("clipd-stopping"))
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
        self.loop.stop()


def _event(name: str, **fields: object) -> dict[str, object]:
    """What makes a record of the log an event (``clip_runc.log``)."""
    return {"fields": {"event": name, "pid": os.getpid(), **fields}}


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def run(
    settings: config.Settings,
    paths: list[str],
    *,
    ready: int = -1,
    device: int = -1,
    listener: int = -1,
    keeper: int = -1,
    keeper_pid: int = 0,
    successor: int = -1,
) -> None:
    """As a daemon: started by a client (``ready`` is its pipe), by the keeper, or by an
    earlier supervisor that is to be replaced (``successor`` is its pipe).
    """
    if ready >= 0:
        daemon.detach(settings, [ready])
    for fd in (ready, device, listener, keeper, successor):
        if fd >= 0:
            os.set_inheritable(fd, False)
    if successor >= 0:
        handover.accept(successor)
    try:
        supervisor = _set_up(settings, paths, ready, device, listener, keeper, keeper_pid)
    except ClipError as error:
        _say(ready, f"{error}\n")
        log.error("%s", error)
        raise SystemExit(1) from None
    _say(ready, "ready\n")
    supervisor.loop.run()


def _say(pipe: int, text: str) -> None:
    if pipe < 0:
        return
    try:
        os.write(pipe, text.encode())
    except BrokenPipeError:
        log.info("whoever started clipd is gone")
    finally:
        os.close(pipe)


def _set_up(
    settings: config.Settings,
    paths: list[str],
    starter: int,
    handed: int,
    listener: int,
    keeper: int,
    keeper_pid: int,
) -> Supervisor:
    logs.configure(settings.log_level, as_json=settings.log_format == "json")
    logs.note_events(settings)
    daemon.make_directories(settings)
    held = daemon.only_one(settings, starter)
    daemon.settle(log)
    state = State.load(f"{settings.run_dir}/clipd.json")
    device = mounting.recover(settings, state, handed)
    _end_server(state)
    if device >= 0 and not mounting.resends(settings, state.init):
        device = mounting.renewed(device)
    if device < 0:
        device = mounting.mount_anew(settings, state)
        log.info("mounted %s", settings.fuse_dir, extra=_event("clipd-started"))
    else:
        text = "took over %s with %d images"
        log.info(text, settings.fuse_dir, len(state.images), extra=_event("clipd-took-over"))
    listening = listen(settings.socket) if listener < 0 else socket.socket(fileno=listener)
    supervisor = Supervisor(settings, paths, state, held)
    _on_signals(supervisor)
    supervisor.begin(device, listening, keeper, keeper_pid)
    return supervisor


def _end_server(state: State) -> None:
    """The server of an earlier supervisor cannot be talked to: it goes, its requests stay."""
    old = state.processes.pop("server", None)
    if old is None or not kill(old.pid, old.started):
        return
    deadline = time.monotonic() + _DEATH_SECONDS
    while old.alive and time.monotonic() < deadline:
        time.sleep(0.005)


def _on_signals(supervisor: Supervisor) -> None:
    """SIGTERM and SIGINT end it in good order; through a pipe, as the loop knows no signals."""
    receive, send = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(send, warn_on_full_buffer=False)

    def caught() -> None:
        os.read(receive, 64)
        supervisor.stop()

    supervisor.loop.watch(receive, caught)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def main() -> None:
    """``clipd``: in the foreground, for systemd; containers start it as a daemon instead."""
    import sys

    try:
        supervisor = _set_up(config.load(), start.package_paths(), -1, -1, -1, -1, 0)
    except ClipError as error:
        sys.exit(f"clipd: {error}")
    supervisor.loop.run()
