"""A registry that misbehaves, seen through a real mount: right bytes late, or a clear error."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import random
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clip_runc import OverlayMounter
from clip_runc.containers.api import Mount
from clip_runc.registry.fake import FakeRegistry
from tests.integration.busybox_images import entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import free_port
from tests.integration.prerequisites import need

FILES = 5
SIZE = 1 << 20
TIMEOUT = 2
AWAY = float(os.environ.get("CLIP_RUNC_AWAY", "2"))  # bench/survival: 30


def contents(seed: int = 5) -> dict[str, bytes]:
    """Files that compress by half."""
    source = random.Random(seed)
    return {f"file{n}": source.randbytes(SIZE // 2).hex().encode() for n in range(FILES)}


def add_image(fake: FakeRegistry, repository: str, files: dict[str, bytes]) -> list[str]:
    """Hold an image of one gzip layer a file; the digests of the blobs."""
    archives = [tar([entry(name, data)]) for name, data in files.items()]
    layers = [gzip.compress(archive, 1, mtime=0) for archive in archives]
    diff_ids = [f"sha256:{hashlib.sha256(archive).hexdigest()}" for archive in archives]
    fake.add_image(repository, "1", layers, diff_ids=diff_ids)
    return [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]


class Door:
    """A port that leads to another one while it is open, and refuses while it is shut."""

    def __init__(self, behind: int) -> None:
        self.port = free_port()
        self._behind = behind
        self._listener: socket.socket | None = None
        self._through: list[socket.socket] = []

    def open(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        """Refuse connections and break those that there are."""
        listener, self._listener = self._listener, None
        for end in [*([listener] if listener else []), *self._through]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._through.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", self._behind))
            except OSError:
                return
            self._through += [here, there]
            for pair in ((here, there), (there, here)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class Scene:
    """A fake registry, an image of it mounted on a machine, nothing fetched yet."""

    def __init__(self, machine: ClipMachine, fake: FakeRegistry) -> None:
        self.machine = machine
        self.fake = fake
        self.door = Door(int(fake.host.rpartition(":")[2]))
        self.door.open()
        fake.host = f"127.0.0.1:{self.door.port}"
        if fake.password:
            login(machine.directory, fake, fake.password)
        self.files = contents(self.door.port)  # no two scenes share a layer
        self.blobs = add_image(fake, "team/app", self.files)
        reference = str(fake.reference("team/app", "1"))
        self.index = machine.directory / f"{self.door.port}.clip"
        machine.ctl("index", "--quiet", "--no-store", "-o", self.index, reference, check=True)
        fake.seen.clear()
        self.mount: Mount = OverlayMounter(settings=machine.settings).mount(self.index)

    def read(self, name: str) -> bytes:
        """A file, past the page cache."""
        path = Path(self.mount.rootfs_path, name)
        data = path.read_bytes()
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return data

    def right(self, name: str) -> bool:
        return self.read(name) == self.files[name]

    def all_right(self) -> bool:
        """Every file, at once."""
        with ThreadPoolExecutor(FILES) as pool:
            return all(pool.map(self.right, self.files))

    def end(self) -> None:
        """Unmount; the machine stays."""
        self.fake.heal()
        self.mount.unmount()
        self.door.shut()
        self.fake.stop()


def home_of(machine: ClipMachine, monkeypatch: pytest.MonkeyPatch) -> ClipMachine:
    """Have clipctl and the clipd of ``machine``, started by us, look for credentials in it."""
    monkeypatch.setenv("DOCKER_CONFIG", str(machine.directory))
    return machine


@pytest.fixture(scope="module")
def common(scratch: Path, index_cache: Path) -> Iterator[ClipMachine]:
    """A machine that the scenes share that want no other settings."""
    need("root", "fuse", "overlay", "runc")
    machine = ClipMachine(scratch, index_cache, read_timeout=20)
    yield machine
    left = machine.sweep()
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture
def staged(
    common: ClipMachine, clip_with: Callable[..., ClipMachine], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Scene]]:
    """Make a scene; settings or a password get it a machine of its own."""
    with contextlib.ExitStack() as stack:

        def make(registry: dict[str, Any] | None = None, **settings: object) -> Scene:
            machine = common
            if settings or registry:
                machine = home_of(clip_with(image_linger=300, **settings), monkeypatch)
            fake = stack.enter_context(FakeRegistry(**(registry or {})))
            scene = Scene(machine, fake)
            stack.callback(scene.end)
            return scene

        yield make


def login(home: Path, fake: FakeRegistry, password: str) -> None:
    """Write a docker config.json."""
    auth = {"username": "user", "password": password}
    (home / "config.json").write_text(json.dumps({"auths": {fake.host: auth}}))


@pytest.mark.parametrize("mode", ["erofs", "loop", "tree"])
def test_every_passing_fault_ends_in_right_bytes(staged: Callable[..., Scene], mode: str) -> None:
    """Each layer has its own faults, so that they can happen at the same time."""
    scene = staged(layer_mode=mode)
    fault = scene.fake.fault
    refused, cut, flipped, ranged, stalled = scene.blobs
    fault("status", 500, times=2, on=refused)
    fault("status", 429, headers={"Retry-After": "1"}, on=refused)
    fault("status", 503, headers={"Retry-After": "1"}, on=refused)
    fault("short", 1000, times=2, on=cut)
    fault("close", times=2, on=cut)
    fault("flip", 5000, times=2, on=flipped)
    fault("ignore_range", times=2, on=ranged)
    fault("content_range", "bytes 0-9/10", on=ranged)
    fault("stall_body", 1, on=ranged)
    fault("stall", 2, on=stalled)
    assert scene.all_right()
    assert not [f.kind for f in scene.fake.faults if f.times], "these never happened"
    assert scene.all_right()


def test_a_registry_that_is_away_for_a_while_costs_time_only(
    staged: Callable[..., Scene],
) -> None:
    scene = staged(read_timeout=int(30 + 3 * AWAY))
    assert scene.right("file0")
    scene.door.shut()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", scene.door.port)).close()
    opener = threading.Timer(AWAY, scene.door.open)
    opener.start()
    try:
        began = time.monotonic()
        assert scene.right("file1")
        assert time.monotonic() - began > AWAY - 0.2
    finally:
        opener.join()


@pytest.mark.parametrize("mode", ["erofs", "loop", "tree"])
def test_a_read_in_vain_is_an_error_in_time_and_the_next_one_tries_again(
    staged: Callable[..., Scene], mode: str
) -> None:
    scene = staged(read_timeout=TIMEOUT, layer_mode=mode)
    scene.fake.fault("status", 503, times=-1)
    began = time.monotonic()
    with pytest.raises(OSError) as caught:
        scene.read("file0")
    assert caught.value.errno == errno.EIO
    assert time.monotonic() - began < 2 * TIMEOUT + 20  # of the kernel's repeats, too
    log = scene.machine.clipd_log()
    line = next(line for line in log.splitlines() if "ERROR image " in line)
    assert re.search(r"image [0-9a-f]{64}.*layer [0-9a-f]{64}, chunk \d+", line), line
    assert "503" in line, line
    scene.fake.heal()
    end = time.monotonic() + 40
    while True:  # one may share the fate of a request that was under way
        time.sleep(0.3)
        try:
            assert scene.right("file0")
            break
        except OSError:
            assert time.monotonic() < end


@pytest.mark.parametrize(
    ("fault", "mode"),
    [("stall", "auto"), ("stall_body", "auto"), ("stall", "loop"), ("stall", "tree")],
)
def test_one_blob_that_hangs_holds_up_no_other(
    staged: Callable[..., Scene], fault: str, mode: str
) -> None:
    scene = staged(**({} if mode == "auto" else {"layer_mode": mode}))
    scene.fake.fault(fault, 30, times=-1, on=scene.blobs[0])
    found: list[bool] = []
    stuck = [threading.Thread(target=lambda: found.append(scene.right("file0"))) for _ in range(8)]
    for thread in stuck:
        thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    assert all(scene.right(name) for name in ("file1", "file2", "file3", "file4"))
    assert time.monotonic() - began < 25
    assert not found
    scene.fake.heal()
    scene.fake.stopping.set()  # ends the stalls
    for thread in stuck:
        thread.join(40)
    scene.fake.stopping.clear()
    assert found == [True] * 8


def test_a_token_that_expires_is_renewed_in_the_middle(staged: Callable[..., Scene]) -> None:
    """Refused with 401, and with the 403 of ECR."""
    scene = staged({"auth": "token", "password": "secret"})
    assert scene.right("file0")
    scene.fake.expire_tokens()
    assert scene.right("file1")
    for name, refusal in (("file2", 401), ("file3", 403)):
        scene.fake.fault("status", refusal)
        assert scene.right(name)


def test_credentials_reach_the_server_and_their_loss_spares_what_is_complete(
    staged: Callable[..., Scene],
) -> None:
    scene = staged({"auth": "basic", "password": "secret"}, read_timeout=TIMEOUT)
    machine = scene.machine
    assert all(scene.right(name) for name in ("file0", "file1"))
    authorized = [s for s in scene.fake.seen if s.headers.get("Authorization")]
    assert authorized
    secret = b"secret"
    for pid in machine.status()["server"]["pid"], machine.status()["supervisor"]["pid"]:
        assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret not in Path(f"/proc/{pid}/environ").read_bytes()
    assert "secret" not in machine.clipd_log()
    (machine.directory / "config.json").unlink()
    scene.fake.password = "changed"
    assert all(scene.right(name) for name in ("file0", "file1"))
    with pytest.raises(OSError):
        scene.read("file2")
    login(machine.directory, scene.fake, "changed")
    assert scene.right("file2")


def test_an_image_deleted_from_its_registry_serves_from_the_store(
    staged: Callable[..., Scene],
) -> None:
    scene = staged()
    assert scene.all_right()
    scene.fake.blobs.clear()
    scene.fake.manifests.clear()
    subprocess.run(["sync", "-f", scene.machine.directory], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("1")
    assert scene.all_right()


def test_sixty_four_readers_of_one_chunk_fetch_it_once(staged: Callable[..., Scene]) -> None:
    scene = staged()
    before = scene.machine.status()["fetched"]
    scene.fake.fault("stall", 0.5, times=-1)
    path = Path(scene.mount.rootfs_path, "file0")
    found: list[bytes] = []
    barrier = threading.Barrier(64)

    def read() -> None:
        barrier.wait()
        with path.open("rb", buffering=0) as file:
            found.append(os.pread(file.fileno(), 4096, 0))

    threads = [threading.Thread(target=read) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [scene.files["file0"][:4096]] * 64
    ranges = [s.headers.get("Range") for s in scene.fake.requests("GET", scene.blobs[0])]
    assert len(ranges) == len(set(ranges))
    total = len(scene.fake.blobs[scene.blobs[0]])
    assert scene.machine.status()["fetched"] - before <= total


def state_of(pid: int) -> str:
    """The letter of ps(1); empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.mark.parametrize("mode", ["erofs", "loop", "tree"])
def test_a_container_whose_reads_hang_can_be_deleted(
    clip_with: Callable[..., ClipMachine], scratch: Path, mode: str
) -> None:
    """One read of its program's data never comes: delete returns all the same, all is gone."""
    need("busybox")
    clip = clip_with(layer_mode=mode, read_timeout=60, image_linger=300)
    busy = Path("/bin/busybox").read_bytes()
    layers = [
        tar([entry("bin/busybox", busy, mode=0o755)]),
        tar([entry("data", random.Random(9).randbytes(3 << 20))]),
    ]
    with FakeRegistry() as fake:
        fake.add_image(
            "team/hang", "1", layers, layer_type="application/vnd.oci.image.layer.v1.tar"
        )
        reference = str(fake.reference("team/hang", "1"))
        clip.index(reference)
        bundle = clip.directory / "bundle"
        clip.ctl("bundle", reference, bundle, "/bin/busybox", check=True)
        reader = ["/bin/busybox", "cat", "/data"]
        clip.edit(bundle, lambda spec: spec["process"].update(args=reader, terminal=False))
        fake.fault("stall", 300, times=-1, on=hashlib.sha256(layers[1]).hexdigest())
        clip.call(
            [
                "sh",
                "-c",
                f"{clip.runtime} --root {clip.root} run -d -b {bundle} c1 >/dev/null 2>&1",
            ],
            check=True,
        )
        pid = json.loads(clip.runc("state", "c1", check=True).stdout)["pid"]
        time.sleep(1.5)
        assert state_of(pid) in ("D", "S"), "it should be waiting for its data"
        began = time.monotonic()
        clip.runc("delete", "--force", "c1", check=True)
        assert time.monotonic() - began < 60
        assert clip.containers_left() == []
        end = time.monotonic() + 30
        while state_of(pid) not in ("", "Z", "X"):
            assert time.monotonic() < end, f"{pid} is in state {state_of(pid)}"
            time.sleep(0.1)
