"""What clipd does about a create that it was told of."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.fs import protocol, watches
from clip_runc.fs.clients import Clients, Connection
from clip_runc.fs.loop import Loop
from clip_runc.fs.watches import Watches


class Clipd:
    """The part of a supervisor that takes watches."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.loop = Loop()
        self.judged: list[protocol.Message] = []
        self.begun: list[protocol.Message] = []
        self.refused: list[protocol.Message] = []
        self.watches = Watches(settings, self.loop, self.judged.append)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(settings.socket)
        self.listener.listen()
        Clients(self.loop, self.listener, self._handle)
        self.watches.offer()

    def _handle(self, connection: Connection, message: protocol.Message) -> None:
        self.watches.begin(message, connection.take_fd())
        self.begun.append(message)

    def run(self, seconds: float) -> None:
        self.loop._running = True  # a supervisor's loop runs once
        self.loop.later(seconds, self.loop.stop)
        self.loop.run()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))
    for directory in (found.control_dir, found.container_dir, found.rootfs_dir):
        os.makedirs(directory)
    return found


@pytest.fixture
def clipd(settings: Settings) -> Iterator[Clipd]:
    found = Clipd(settings)
    yield found
    found.listener.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as found:
        yield found
        found.kill()


def told(settings: Settings, pid: int, *, follow: bool = False) -> bool:
    message = {
        "op": "watch", "key": "c-1", "root": f"{settings.state_dir}/runc", "container": "c",
        "creator": [pid, 1], "follow": follow,
    }  # fmt: skip
    pidfd = os.pidfd_open(pid)
    try:
        return watches.tell(settings, json.dumps(message).encode(), pidfd)
    finally:
        os.close(pidfd)


def prepared(settings: Settings) -> None:
    os.makedirs(f"{settings.container_dir}/c-1")


def known(settings: Settings, name: str) -> None:
    place = Path(settings.state_dir, "runc/c")
    place.mkdir(parents=True)
    (place / name).touch()


def test_a_create_that_failed_is_judged_once(
    clipd: Clipd, settings: Settings, process: subprocess.Popen[bytes]
) -> None:
    prepared(settings)
    before = os.listdir("/proc/self/fd")
    assert told(settings, process.pid)
    clipd.run(0.2)
    assert (len(clipd.begun), clipd.judged) == (1, [])
    process.kill()
    process.wait()
    clipd.run(0.2)
    assert [message["key"] for message in clipd.judged] == ["c-1"]
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("name", ["state.json", "status"])
def test_a_container_that_the_runtime_knows_is_nobodys_case(
    clipd: Clipd, settings: Settings, process: subprocess.Popen[bytes], name: str
) -> None:
    prepared(settings)
    assert told(settings, process.pid)
    known(settings, name)
    process.kill()
    process.wait()
    clipd.run(0.2)
    assert clipd.judged == []


def test_nothing_there_is_nothing_to_judge(
    clipd: Clipd, settings: Settings, process: subprocess.Popen[bytes]
) -> None:
    """The poststop hook of a ``run`` that ended has taken everything down."""
    assert told(settings, process.pid)
    process.kill()
    process.wait()
    clipd.run(0.2)
    assert (len(clipd.begun), clipd.judged) == (1, [])


def test_a_run_is_let_go_when_its_container_is_there(
    clipd: Clipd, settings: Settings, process: subprocess.Popen[bytes]
) -> None:
    prepared(settings)
    before = os.listdir("/proc/self/fd")
    assert told(settings, process.pid, follow=True)
    clipd.run(0.1)
    known(settings, "state.json")
    clipd.run(1)
    assert os.listdir("/proc/self/fd") == before
    process.kill()
    process.wait()
    clipd.run(0.1)
    assert clipd.judged == []


def test_a_successor_is_told_again(
    clipd: Clipd, settings: Settings, process: subprocess.Popen[bytes]
) -> None:
    prepared(settings)
    assert told(settings, process.pid)
    clipd.run(0.1)
    clipd.watches.hand_over(lambda message: json.dumps(message).encode())
    clipd.run(0.1)
    assert clipd.begun[0] == clipd.begun[1]


def test_nobody_to_tell(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    """No clipd, one of an older version, one that is gone, one that is too busy."""
    assert not told(settings, process.pid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(settings.socket)
        listener.listen(0)
        assert not told(settings, process.pid)
        offer = Path(watches.offer_file(settings))
        offer.write_text("1\n")  # one in another mount namespace
        assert not told(settings, process.pid)
        offer.write_bytes(watches._mount_namespace())
        assert told(settings, process.pid)
        assert not told(settings, process.pid)  # the queue has room for one
        assert select.select([listener], [], [], 1)[0]
    assert not told(settings, process.pid)


def test_an_offer_is_taken_back(clipd: Clipd, settings: Settings) -> None:
    for _ in range(2):
        clipd.watches.withdraw()
    assert not os.path.exists(watches.offer_file(settings))
    assert not told(settings, os.getpid())


def test_a_request_without_a_descriptor_is_refused(clipd: Clipd, settings: Settings) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(settings.socket)
        protocol.send(sock, {"op": "watch", "key": "c-1"})
        clipd.run(0.2)
        received = protocol.receive(sock)
    clipd.run(0.1)
    assert received is not None
    assert "0 descriptors" in str(received[0]["message"])
