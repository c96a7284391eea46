"""clipd: keeps the FUSE mount and its images, whoever dies.  Root; standard library only.

Parses nothing that came from a registry, and keeps no file of its own mount open: closing
one would wait for a server that may not be there.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from clip_runc import config
from clip_runc import log as logs
from clip_runc.errors import ClipError
from clip_runc.fs import daemon, handover, managed, mounting, start
from clip_runc.fs.clients import listen, refuse_waiting
from clip_runc.fs.managed import Given, Managed
from clip_runc.fs.state import State
from clip_runc.fs.supervision import Supervisor
from clip_runc.linux.service_manager import ServiceManager

log = logging.getLogger("clip_runc.clipd")

_ENDING = (signal.SIGTERM, signal.SIGINT, managed.LEAVE)


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
    activated: bool = False,
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
    given = Given(
        ready=ready,
        devices=[device] if device >= 0 else [],
        listener=listener,
        keeper=keeper,
        keeper_pid=keeper_pid,
        activated=activated,
    )
    try:
        supervisor = _set_up(settings, paths, given)
    except ClipError as error:
        _say(ready, "".join(f"{' '.join(x.split())}\n" for x in (error.message, error.hint)))
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


def _set_up(settings: config.Settings, paths: list[str], given: Given) -> Supervisor:
    # until somebody can act on them: one that ends us now would leave a dead mount
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    logs.configure(settings.log_level, as_json=settings.log_format == "json")
    logs.note_events(settings)
    if given.activated:
        managed.check_address(given.listener, settings)
    service = ServiceManager(os.environ, os.getpid())
    daemon.make_directories(settings)
    if given.displaces:
        daemon.displace(State.load(_state_file(settings)), log)
    held = daemon.only_one(settings, given.ready)
    daemon.settle(log, managed=service.present)
    state = State.load(_state_file(settings))
    device, fresh = mounting.obtain(settings, state, given.devices, log)
    manager = Managed(log, service)
    manager.hold(device, fresh=fresh)
    listening = (
        listen(settings.socket) if given.listener < 0 else socket.socket(fileno=given.listener)
    )
    supervisor = Supervisor(settings, paths, state, held, manager)
    _on_signals(supervisor)
    supervisor.begin(device, listening, given)
    return supervisor


def _state_file(settings: config.Settings) -> str:
    return f"{settings.run_dir}/clipd.json"


def _on_signals(supervisor: Supervisor) -> None:
    """Signals end it in good order; through a pipe, as the loop knows no signals."""
    receive, send = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(send, warn_on_full_buffer=False)

    def caught() -> None:
        if set(os.read(receive, 64)) == {managed.LEAVE}:
            supervisor.leave()
        else:
            supervisor.stop()

    supervisor.loop.watch(receive, caught)
    for number in _ENDING:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def main() -> None:
    """``clipd``: in the foreground, for systemd; containers start it as a daemon instead."""
    given = managed.given(ServiceManager(os.environ, os.getpid()))
    try:
        supervisor = _set_up(config.load(), start.package_paths(), given)
    except ClipError as error:
        sys.stderr.write(f"clipd: {error}\n")
        if given.activated:
            refuse_waiting(socket.socket(fileno=given.listener), error)
        raise SystemExit(1 if given.devices else managed.HOPELESS) from None
    supervisor.loop.run()
