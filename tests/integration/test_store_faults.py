"""The store damaged below a running clipd, in each layer mode: what is read is right."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from clip_runc import OverlayMounter
from clip_runc.linux.mount import unmount
from tests.integration.busybox_images import entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import write_image, write_layer
from tests.integration.prerequisites import need
from tests.integration.pushing import push

FILES, SIZE = 4, 4 << 20


def content(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE // 2).hex().encode()


@pytest.fixture(scope="module")
def reference(registry: DockerRegistry, scratch: Path) -> str:
    layout = scratch / "faulty-store"
    archive = tar([entry(f"file{number}", content(number)) for number in range(FILES)])
    image = write_image(layout, [write_layer(layout, [archive])], {"Cmd": ["/x"]})
    return push(image, registry.host, "faulty/store", "1")


class Scene(NamedTuple):
    """A machine whose store is a file system of its own."""

    machine: ClipMachine
    store: Path

    def data(self) -> Path:
        return next(self.store.glob("*/data"))


@pytest.fixture(params=["erofs", "tree"])
def scene(
    request: pytest.FixtureRequest, clip_with: Callable[..., ClipMachine], tmp_path: Path
) -> Iterator[Scene]:
    need("erofs", "overlay")
    machine = clip_with(layer_mode=request.param, image_linger=0)
    disk, store = tmp_path / "store.img", Path(machine.settings.store_dir)
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(disk)], check=True)
    store.mkdir(parents=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(store)], check=True)
    store.chmod(0o700)
    os.chown(store, machine.settings.server_uid, machine.settings.server_uid)
    yield Scene(machine, store)
    machine.ctl("stop")
    while unmount(str(store)):
        continue


def flip(scene: Scene) -> None:
    with scene.data().open("r+b") as file:
        file.seek(SIZE // 2)
        old = file.read(1)
        file.seek(SIZE // 2)
        file.write(bytes([old[0] ^ 1]))


def truncate(scene: Scene) -> None:
    os.truncate(scene.data(), SIZE // 2)


def read_only(scene: Scene) -> None:
    """As the kernel does upon an error of the disk; files stay open."""
    subprocess.run(["mount", "-o", "remount,abort", str(scene.store)], check=False)
    with pytest.raises(OSError) as caught:
        (scene.store / "probe").touch()
    assert caught.value.errno == errno.EROFS


def full(scene: Scene) -> None:
    with (
        (scene.store / "ballast").open("wb", buffering=0) as file,
        pytest.raises(OSError) as caught,
    ):
        while True:
            file.write(bytes(1 << 16))
    assert caught.value.errno == errno.ENOSPC


def wait_until_quiet(machine: ClipMachine) -> None:
    """What was read ahead is stored: a stranger's write beside ours is not told from it."""
    before = -1
    while before != (now := machine.status()["store"]["chunks"]):
        before = now
        time.sleep(1)


@pytest.mark.parametrize("fault", [flip, truncate, read_only, full])
def test_what_is_read_is_right(
    scene: Scene, reference: str, fault: Callable[[Scene], None]
) -> None:
    machine = scene.machine
    with OverlayMounter(settings=machine.settings).mount(str(machine.index(reference))) as mount:
        root = Path(mount.rootfs_path)
        # part of it: what comes later has to be stored, or cannot be
        assert (root / "file0").read_bytes() == content(0)
        wait_until_quiet(machine)
        fault(scene)
        for _ in range(2):
            Path("/proc/sys/vm/drop_caches").write_text("1")
            for number in range(FILES):
                assert (root / f"file{number}").read_bytes() == content(number)
        assert machine.status()["server"]["restarts"] == 0
