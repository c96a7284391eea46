"""clipd's processes killed and stopped in every combination, under readers."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_runc.errors import ServerError
from clip_runc.fs import client, handover
from clip_runc.linux.mount import mounts
from tests.integration.clip_machine import ClipMachine, processes_of
from tests.integration.daemons import DockerRegistry, alive
from tests.integration.image_maker import Image
from tests.integration.prerequisites import need
from tests.integration.pushing import push
from tests.integration.served_image import (
    FILES,
    Served,
    contents,
    finish,
    mounts_of,
    readers,
    survival_image,
    wait_for_processes,
)


@pytest.fixture(scope="module")
def image(scratch: Path) -> Image:
    return survival_image(scratch / "survival")


@pytest.fixture
def served(
    request: pytest.FixtureRequest,
    clip_with: Callable[..., ClipMachine],
    registry: DockerRegistry,
    image: Image,
) -> Iterator[Served]:
    """In ``erofs`` mode, or in that which the test says (``each_mode``)."""
    need("erofs", "overlay")
    reference = push(image, registry.host, "fs/survival", "latest")
    mode = getattr(request, "param", "erofs")
    found = Served(clip_with(image_linger=300), reference, image, mode)
    yield found
    found.end()


each_mode = pytest.mark.parametrize("served", ["erofs", "loop", "tree"], indirect=True)


@each_mode
def test_server_killed_twenty_times_under_readers(served: Served) -> None:
    running = readers(served, 10)
    killed = set()
    for _ in range(20):
        time.sleep(random.uniform(0.1, 0.8))
        pid = served.pid("server")
        if pid:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    assert finish(running, 30) >= FILES
    assert len(killed) >= 15
    assert served.status()["server"]["restarts"] >= 15


@each_mode
@pytest.mark.parametrize(
    "roles",
    [
        ("keeper",),
        ("supervisor",),
        ("supervisor", "server"),
        ("keeper", "server"),
        ("keeper", "supervisor"),
    ],
)
def test_any_one_or_two_killed_under_readers(served: Served, roles: tuple[str, ...]) -> None:
    before = served.status()
    running = readers(served, 3)
    time.sleep(0.5)
    served.kill(*roles)
    served.wait_for(
        lambda s: (
            s["server"]["state"] == "serving"
            and all(s[role]["pid"] not in (0, before[role]["pid"]) for role in roles)
        )
    )
    assert finish(running, 20) >= FILES
    assert [i["manifest"] for i in served.status()["images"]] == [served.local.manifest_hex]
    assert len(mounts_of(served)) == 1
    wait_for_processes(served, 3)


def test_all_three_killed_is_an_error_at_once_or_healed(served: Served) -> None:
    """Healed where the keeper saw the supervisor die before its own turn came."""
    served.kill("supervisor", "keeper", "server")
    look = ["ls", served.settings.fuse_dir]
    done = subprocess.run(look, capture_output=True, text=True, timeout=30, check=False)
    dead = ("Transport endpoint is not connected", "Software caused connection abort")
    assert done.returncode == 0 or any(reason in done.stderr for reason in dead)
    with client.ensure_clipd(served.settings) as clipd:
        clipd.attach(served.local.manifest_hex, served.local.index_path)
    assert len(mounts_of(served)) == 1
    with open(served.layer, "rb") as file:
        assert len(file.read(4096)) == 4096


@each_mode
def test_a_stopped_server_is_replaced(served: Served) -> None:
    pid = served.pid("server")
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    name, data = next(iter(contents().items()))
    done = subprocess.run(
        ["sha256sum", served.target / name], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()
    assert time.monotonic() - started < 30
    assert not alive(pid)


@each_mode
def test_a_server_that_crashes_is_replaced(served: Served) -> None:
    running = readers(served, 5)
    for number in (signal.SIGSEGV, signal.SIGABRT):
        time.sleep(1)
        pid = served.pid("server")
        os.kill(pid, number)
        served.wait_for(
            lambda s, pid=pid: (  # type: ignore[misc]
                s["server"]["pid"] not in (0, pid) and s["server"]["state"] == "serving"
            )
        )
    assert finish(running, 30) >= FILES


@each_mode
def test_a_server_out_of_memory_is_replaced(served: Served) -> None:
    """In a memory cgroup of its own (v1) that has no room: the kernel kills it."""
    need("memory cgroup v1")
    group = Path(f"/sys/fs/cgroup/memory/clip-test-{os.getpid()}")
    group.mkdir()
    try:
        pid = served.pid("server")
        (group / "memory.limit_in_bytes").write_text(str(1 << 20))
        (group / "cgroup.procs").write_text(str(pid))
        running = readers(served, 4)
        served.wait_for(lambda s: s["server"]["pid"] not in (0, pid), seconds=30)
        assert finish(running, 30) >= FILES
        assert "oom_kill 1" in (group / "memory.oom_control").read_text()
    finally:
        group.rmdir()


@each_mode
def test_upgrade_replaces_all_three_under_readers(served: Served) -> None:
    running = readers(served, 5)
    for _ in range(2):
        time.sleep(1)
        before = served.status()
        done = served.machine.ctl("upgrade", check=True)
        assert "supervisor" in done.stdout
        after = served.status()
        for role in ("supervisor", "keeper", "server"):
            assert after[role]["pid"] not in (0, before[role]["pid"])
            assert not alive(before[role]["pid"])
        assert after["server"]["state"] == "serving"
        assert [i["manifest"] for i in after["images"]] == [served.local.manifest_hex]
    assert finish(running, 30) >= FILES
    assert len(mounts_of(served)) == 1
    wait_for_processes(served, 3)


def test_an_upgrade_to_something_broken_changes_nothing(served: Served) -> None:
    before = served.status()
    message: Any = handover.request(served.settings)
    message["payload"]["paths"] = []
    message["program"][3] = "/dev/null"
    with client.ensure_clipd(served.settings) as clipd, pytest.raises(ServerError):
        clipd._call(message)
    after = served.status()
    for role in ("supervisor", "keeper", "server"):
        assert after[role]["pid"] == before[role]["pid"]


def test_a_running_clipd_belongs_to_nobody(served: Served) -> None:
    status = served.status()
    for role in ("supervisor", "keeper", "server"):
        pid = status[role]["pid"]
        assert os.getsid(pid) != os.getsid(0)
        assert os.getpgid(pid) != os.getpgid(0)
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            path = line.split(":", 2)[2]
            assert path in ("/", "/clip-runc"), line
    for role in ("supervisor", "keeper"):
        pid = status[role]["pid"]
        targets = [os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [t for t in targets if t.startswith(served.settings.fuse_dir)]
        allowed = ("/dev/", "socket:", "pipe:", "anon_inode:", str(served.machine.directory))
        assert all(t.startswith(allowed) for t in targets), targets


def test_the_server_has_no_privileges(served: Served) -> None:
    fields = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{served.pid('server')}/status").read_text().splitlines()
        if ":\t" in line
    )
    uid = str(served.settings.server_uid)
    assert fields["Uid"].split() == fields["Gid"].split() == [uid] * 4
    assert fields["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0


def test_the_control_socket_is_roots_alone(served: Served) -> None:
    settings = served.settings
    assert stat.S_IMODE(os.stat(settings.control_dir).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(settings.socket).st_mode) == 0o600
    knock = "import socket; socket.socket(1, 5).connect('control/clipd.sock')"
    argv = ["/usr/bin/python3", "-I", "-S", "-c", knock]
    done = subprocess.run(
        argv, user=65534, cwd=settings.run_dir, capture_output=True, text=True, check=False
    )
    assert "PermissionError" in done.stderr


def test_started_twice_at_one_instant_is_one(clip: ClipMachine) -> None:
    settings = clip.settings
    found: list[int] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        with client.ensure_clipd(settings) as clipd:
            status: Any = clipd.status()
            found.append(status["supervisor"]["pid"])

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_stop_leaves_no_mount_and_no_process(clip: ClipMachine) -> None:
    with client.ensure_clipd(clip.settings) as clipd:
        clipd.status()
        clipd.stop()
    assert [m.target for m in mounts() if m.target.startswith(str(clip.directory))] == []
    end = time.monotonic() + 30
    while processes_of([str(clip.run_dir)]):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert client.connect(clip.settings) is None
    assert not os.path.exists(clip.settings.socket)


@pytest.mark.parametrize("roles", [("keeper", "supervisor"), ("keeper", "supervisor", "server")])
def test_what_is_left_of_a_killed_clipd_can_be_stopped(
    served: Served, roles: tuple[str, ...]
) -> None:
    status = served.status()
    served.kill(*roles)
    while any(alive(status[role]["pid"]) for role in roles):
        time.sleep(0.01)
    clipd = client.connect(served.settings)
    assert clipd is not None
    with clipd:
        clipd.stop()
    assert not alive(status["server"]["pid"])
    assert not mounts_of(served)
