"""clipd as a unit: socket activation, the file descriptor store, restarts under readers.

systemd is played (``played_systemd``); the real one is asked in ``tests/kernels``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip_runc.fs import managed
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry, alive, wait_for
from tests.integration.image_maker import Image
from tests.integration.played_systemd import PlayedSystemd
from tests.integration.pushing import push
from tests.integration.served_image import (
    FILES,
    Served,
    finish,
    mounts_of,
    readers,
    survival_image,
    wait_for_processes,
)


@pytest.fixture(scope="module")
def image(scratch: Path) -> Image:
    return survival_image(scratch / "systemd")


@pytest.fixture
def machine(clip_with: Callable[..., ClipMachine]) -> ClipMachine:
    return clip_with(image_linger=300)


@pytest.fixture
def systemd(machine: ClipMachine) -> Iterator[PlayedSystemd]:
    with PlayedSystemd(machine) as found:
        yield found


@pytest.fixture
def served(
    machine: ClipMachine, systemd: PlayedSystemd, registry: DockerRegistry, image: Image
) -> Iterator[Served]:
    found = Served(machine, push(image, registry.host, "fs/survival", "latest"), image)
    yield found
    found.end()


def mount_id(served: Served) -> str:
    """The number of the FUSE mount: another mount has another one."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    (found,) = [one.split()[0] for one in lines if one.split()[4] == served.settings.fuse_dir]
    return found


def is_whole(served: Served, systemd: PlayedSystemd) -> None:
    """Two processes serve the image at the mount, whose device is kept once."""
    served.wait_for(lambda status: status["server"]["state"] == "serving")
    status = served.status()
    assert status["supervisor"]["pid"] == systemd.main
    assert (status["holder"], status["keeper"]["pid"]) == ("service manager", 0)
    assert [one["manifest"] for one in status["images"]] == [served.local.manifest_hex]
    assert len(mounts_of(served)) == 1
    wait_for_processes(served, 2)


def test_the_first_container_starts_it(
    machine: ClipMachine, systemd: PlayedSystemd, busybox_ref: str
) -> None:
    settings = machine.settings
    inode = os.stat(settings.socket).st_ino
    assert json.loads(machine.ctl("status", "--json").stdout) == {"running": False}
    assert "not running" in machine.ctl("stop").stdout
    machine.ctl("gc", check=True)
    assert systemd.starts == 0, "only a container may wake it"
    bundle = machine.bundle(busybox_ref, "/bin/cat", "/srv/data/a")
    assert machine.runc("run", "--bundle", bundle, "one", check=True).stdout == "one\n"
    assert systemd.starts == 1
    status = machine.status()
    assert status["supervisor"]["pid"] == systemd.main
    assert (status["holder"], status["keeper"]["pid"]) == ("service manager", 0)
    assert systemd.told("READY") == ["1"]
    assert systemd.told("STATUS")[-1].startswith("server ")
    assert list(systemd.store) == [managed.DEVICE]
    assert os.stat(settings.socket).st_ino == inode, "the socket stays the manager's"
    server = Path(f"/proc/{status['server']['pid']}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in server
    assert b"LISTEN_FDS" not in server


def test_all_killed_at_once_under_readers(served: Served, systemd: PlayedSystemd) -> None:
    mount = mount_id(served)
    running = readers(served, 12)
    for _ in range(4):
        time.sleep(0.5)
        before = systemd.starts
        served.kill("supervisor", "server")
        wait_for(lambda before=before: systemd.starts > before, "a restart", seconds=10)  # type: ignore[misc]  # binds the loop's value
        is_whole(served, systemd)
    assert finish(running, 40) >= FILES
    assert systemd.statuses == [-signal.SIGKILL] * 4
    assert mount_id(served) == mount
    assert len(systemd.store[managed.DEVICE]) >= 1


def test_restarted_under_readers(served: Served, systemd: PlayedSystemd) -> None:
    mount = mount_id(served)
    running = readers(served, 10)
    for _ in range(5):
        time.sleep(0.3)
        before = served.status()
        systemd.restart()
        is_whole(served, systemd)
        for role in ("supervisor", "server"):
            assert not alive(before[role]["pid"])
    assert finish(running, 40) >= FILES
    assert systemd.statuses == [0] * 5
    assert mount_id(served) == mount


def test_reloaded_under_readers(served: Served, systemd: PlayedSystemd) -> None:
    """``ExecReload=``: another process is the main one, and says that it is ready."""
    mount = mount_id(served)
    running = readers(served, 8)
    for _ in range(2):
        time.sleep(0.5)
        before, ready = systemd.main, len(systemd.told("READY"))
        served.machine.ctl("upgrade", check=True)
        assert systemd.main != before
        assert int(systemd.told("MAINPID")[-1]) == systemd.main
        assert int(systemd.told("MONOTONIC_USEC")[-1]) <= time.monotonic_ns() // 1000
        assert len(systemd.told("READY")) == ready + 1
        is_whole(served, systemd)
    served.kill("supervisor", "server")
    wait_for(lambda: systemd.starts == 2, "a restart", seconds=10)
    is_whole(served, systemd)
    assert finish(running, 40) >= FILES
    assert mount_id(served) == mount


@pytest.mark.parametrize("how", ["systemctl stop", "clipctl stop"])
def test_stopped_in_good_order(served: Served, systemd: PlayedSystemd, how: str) -> None:
    served.machine.ctl("upgrade", check=True)  # the successor's end is one like the first's
    server = served.pid("server")
    if how == "systemctl stop":
        systemd.stop()
    else:
        served.machine.ctl("stop", check=True)
        wait_for(lambda: not systemd.main, "its end", seconds=10)
    assert mounts_of(served) == []
    assert not alive(server)
    assert systemd.statuses == [0]
    assert systemd.told("STATUS")[-1] == "unmounted"
    assert systemd.told("STOPPING") == ["1"]
    assert systemd.store == {}
    assert not Path(f"{served.machine.run_dir}/clipd.json").exists()
    starts = systemd.starts
    assert served.machine.ctl("status").returncode == 3
    assert systemd.starts == starts
    assert served.status()["supervisor"]["pid"] == systemd.main
    assert len(mounts_of(served)) == 1


def test_one_that_hangs_is_killed(machine: ClipMachine, registry: DockerRegistry, image: Image
) -> None:  # fmt: skip
    with PlayedSystemd(machine, watchdog=2, abstract=True) as systemd:
        served = Served(machine, push(image, registry.host, "fs/survival", "latest"), image)
        try:
            running = readers(served, 9)
            time.sleep(3)
            assert systemd.starts == 1, "it says that it lives"
            stopped = systemd.main
            os.kill(stopped, signal.SIGSTOP)
            wait_for(lambda: systemd.starts == 2, "a restart", seconds=15)
            assert not alive(stopped)
            is_whole(served, systemd)
            assert finish(running, 40) >= FILES
        finally:
            served.end()


def test_one_that_a_client_started_makes_room(
    machine: ClipMachine, registry: DockerRegistry, image: Image
) -> None:
    """The socket unit is started while a clipd runs that it knows nothing of."""
    served = Served(machine, push(image, registry.host, "fs/survival", "latest"), image)
    try:
        mount, before = mount_id(served), served.status()
        assert before["holder"] == "keeper"
        running = readers(served, 6)
        with PlayedSystemd(machine) as systemd:
            time.sleep(0.5)
            is_whole(served, systemd)
            for role in ("supervisor", "keeper", "server"):
                assert not alive(before[role]["pid"])
            assert finish(running, 40) >= FILES
            assert mount_id(served) == mount
    finally:
        served.end()


def test_why_it_does_not_start_is_told_at_once(
    machine: ClipMachine, systemd: PlayedSystemd, busybox_ref: str
) -> None:
    systemd.environ["CLIP_RUNC_RUN_DIR"] = f"{machine.directory}/elsewhere"
    bundle = machine.bundle(busybox_ref, "/bin/true")
    begun = time.monotonic()
    failed = machine.runc("run", "--bundle", bundle, "one")
    assert time.monotonic() - begun < 20
    assert failed.returncode != 0
    assert "clipctl install --systemd" in failed.stderr
    wait_for(lambda: not systemd.main, "its end", seconds=10)
    assert set(systemd.statuses) == {managed.HOPELESS}
    systemd.environ.clear()
    machine.runc("run", "--bundle", bundle, "two", check=True)


def test_without_resend_the_mount_lives_on_too(
    clip_with: Callable[..., ClipMachine], registry: DockerRegistry, image: Image
) -> None:
    """Linux before 6.9: what was taken fails, what comes after is served."""
    machine = clip_with(image_linger=300, resend=False)
    with PlayedSystemd(machine) as systemd:
        served = Served(machine, push(image, registry.host, "fs/survival", "latest"), image)
        try:
            mount = mount_id(served)
            for kill in (True, False, True):
                if kill:
                    before = systemd.starts
                    served.kill("supervisor", "server")
                    wait_for(lambda before=before: systemd.starts > before, "a restart")  # type: ignore[misc]  # binds the loop's value
                else:
                    systemd.restart()
                is_whole(served, systemd)
                assert len(systemd.store[managed.DEVICE]) == 1
                assert finish(readers(served, 0.5), 30) >= FILES
                served.running.clear()
            assert mount_id(served) == mount
        finally:
            served.end()
