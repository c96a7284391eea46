"""clipd's side of a service manager, and clients of a socket behind which nobody is."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.errors import ConfigError, MountFailed, ServerError
from clip_runc.fs import client, daemon, managed, protocol
from clip_runc.fs.clients import refuse_waiting
from clip_runc.fs.loop import Loop
from clip_runc.fs.state import Process, State
from clip_runc.linux.files import lock, make_private_dir
from clip_runc.linux.service_manager import ServiceManager

LOG = logging.getLogger("clip_runc.test")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))
    for path in (settings.run_dir, settings.lock_dir, settings.control_dir):
        make_private_dir(path)
    return settings


@pytest.fixture
def listener(settings: Settings) -> Iterator[socket.socket]:
    """A manager's: nobody accepts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(settings.socket)
        sock.listen(4)
        yield sock


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[ServiceManager, socket.socket]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{tmp_path}/notify")
        sock.settimeout(5)
        environ = {"NOTIFY_SOCKET": f"{tmp_path}/notify", "FDSTORE": "4", "WATCHDOG_USEC": "90000"}
        yield ServiceManager(environ, 1), sock


def said(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split("\n")


def test_who_only_looks_wakes_nobody(settings: Settings, listener: socket.socket) -> None:
    assert client.is_asleep(settings)
    assert client.connect(settings) is None
    assert client.connect_or_wait(settings) is None
    with pytest.raises(ServerError, match="does not run"):
        client.Client.connect(settings)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_one_that_is_there_or_will_be_back_is_called(
    settings: Settings, listener: socket.socket
) -> None:
    with lock(f"{settings.lock_dir}/clipd"):  # it comes up
        client.Client.connect(settings).close()
    State(f"{settings.run_dir}/clipd.json").save()  # it was killed
    client.Client.connect(settings).close()
    client.ensure_clipd(settings).close()
    for _ in range(3):
        listener.accept()[0].close()


def test_a_container_wakes_it(settings: Settings, listener: socket.socket) -> None:
    client.ensure_clipd(settings).close()
    listener.accept()[0].close()


def test_who_waits_is_told_why(settings: Settings, listener: socket.socket) -> None:
    with client.ensure_clipd(settings) as one, client.ensure_clipd(settings) as other:
        refuse_waiting(listener, MountFailed("/dev/fuse: gone", "load the module"))
        for found in (one, other):
            received = protocol.receive(found._sock)
            assert received is not None
            with pytest.raises(MountFailed, match="/dev/fuse: gone"):
                protocol.raise_error(received[0])


def test_the_socket_has_to_be_where_clients_look(
    settings: Settings, listener: socket.socket
) -> None:
    managed.check_address(listener.fileno(), settings)
    with pytest.raises(ConfigError, match="install --systemd"):
        managed.check_address(listener.fileno(), Settings(run_dir="/elsewhere"))
    listener.getsockname()  # it is still ours


def test_the_device_is_kept_and_a_fresh_one_replaces_it(
    manager: tuple[ServiceManager, socket.socket],
) -> None:
    service, sock = manager
    told = managed.Managed(LOG, service)
    told.hold(0, fresh=False)
    assert told.holds
    assert said(sock) == ["FDSTORE=1", "FDNAME=fuse"]
    told.hold(0, fresh=True)
    assert [said(sock)[0], said(sock)[0]] == ["FDSTOREREMOVE=1", "FDSTORE=1"]
    alone = managed.Managed(LOG, ServiceManager({}, 1))
    alone.hold(0, fresh=True)
    assert not alone.holds


def test_a_manager_that_is_gone_is_no_holder(
    manager: tuple[ServiceManager, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    service, sock = manager
    sock.close()
    told = managed.Managed(LOG, service)
    with caplog.at_level(logging.CRITICAL):
        told.hold(0, fresh=False)
    assert not told.holds, "then a keeper is needed"


def test_it_hears_that_we_live_and_what_changes(
    manager: tuple[ServiceManager, socket.socket],
) -> None:
    service, sock = manager
    loop, status = Loop(), ["one"]
    managed.Managed(LOG, service).begin(loop, lambda: status[0])
    assert said(sock) == ["READY=1", "WATCHDOG=1", "STATUS=one"]
    loop.later(0.05, loop.stop)
    loop.run()
    assert said(sock) == ["WATCHDOG=1"]
    status[0] = "two"
    loop.later(0.05, loop.stop)
    loop._running = True
    loop.run()
    while "STATUS=two" not in (lines := said(sock)):
        assert lines == ["WATCHDOG=1"]


def test_what_is_handed_over(tmp_path: Path) -> None:
    script = """
import os
from clip_runc.fs import managed
from clip_runc.linux.service_manager import ServiceManager
os.environ["LISTEN_PID"] = str(os.getpid())
found = managed.given(ServiceManager(os.environ, os.getpid()))
left = []
for fd in range(3, 9):
    try:
        os.fstat(fd)
        left.append(fd)
    except OSError:
        pass
print(found.listener, found.devices, found.activated, found.displaces, left)
"""
    environ = {**os.environ, "NOTIFY_SOCKET": "/nowhere"}

    def run(names: str) -> str:
        variables = {"LISTEN_FDS": str(names.count(":") + 1), "LISTEN_FDNAMES": names}
        redirections = " ".join(f"{fd}</dev/null" for fd in range(3, 9))
        argv = ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", script]
        done = subprocess.run(
            argv, env={**environ, **variables}, capture_output=True, text=True, check=False
        )
        assert not done.stderr
        return done.stdout.strip()

    # 9 and up are Python's own; what nobody asked for is closed
    assert run("control:fuse:other:fuse:control") == "3 [4, 6] True True [3, 4, 6, 8]"
    assert run("fuse") == "-1 [3] False True [3, 4, 5, 6, 7, 8]"


def test_a_clipd_of_a_client_makes_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = State(str(tmp_path / "clipd.json"))
    sleeping = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    for role, one in zip(("keeper", "supervisor", "server"), sleeping, strict=True):
        state.processes[role] = Process(one.pid)
    with caplog.at_level(logging.CRITICAL):
        daemon.displace(state, LOG)
    try:
        assert [one.wait(5) for one in sleeping[:2]] == [-9, -9]
        assert sleeping[2].poll() is None, "the server has the mount"
    finally:
        for one in sleeping:
            one.kill()
            one.wait()


def test_interface(manager: Any) -> None:
    """What a successor gets is what it needs to be one."""
    service, _ = manager
    assert managed.Managed(LOG, service).environment().keys() == {
        "NOTIFY_SOCKET", "FDSTORE", "WATCHDOG_USEC",
    }  # fmt: skip
