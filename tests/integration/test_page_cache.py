"""What a container has read is in memory once, whatever lies between it and the disk."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_runc import OverlayMounter
from clip_runc.fs import client
from clip_runc.images import local
from tests.integration.busybox_images import entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import write_image, write_layer
from tests.integration.prerequisites import need
from tests.integration.pushing import push

SIZE = 24 << 20
MOST = 1.3
SECONDS = 40.0


@pytest.fixture(scope="module")
def reference(registry: DockerRegistry, scratch: Path) -> str:
    need("erofs", "fincore")
    layout = scratch / "page-cache"
    data = random.Random(3).randbytes(SIZE // 2).hex().encode()
    image = write_image(
        layout, [write_layer(layout, [tar([entry("data", data)])])], {"Cmd": ["/x"]}
    )
    return push(image, registry.host, "pages/cache", "1")


def resident(path: str | Path) -> int:
    """Bytes of a file in the page cache."""
    command = ["fincore", "--bytes", "--noheadings", "--raw", "--output", "RES", str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def caches(machine: ClipMachine, reference: str, root: Path) -> dict[str, float]:
    """Where bytes of the file may be, and what share of them is."""
    image = local.find(machine.settings, reference)
    assert image is not None
    with client.ensure_clipd(machine.settings) as clipd:
        layers = clipd.attach(image.manifest_hex, image.index_path)["layers"]
    assert isinstance(layers, list)
    places = {
        "container": root / "data",
        "fuse": f"{machine.settings.fuse_dir}/layers/{layers[0]['file']}",
        "store": f"{machine.settings.store_dir}/{layers[0]['diff']}/data",
    }
    return {name: resident(path) / SIZE for name, path in places.items()}


def read_ahead_kib() -> str:
    """Of the EROFS that was mounted last."""
    found = Path("/sys/class/bdi").glob("erofs-*")
    last = max(found, key=lambda path: int(path.name.removeprefix("erofs-")))
    return (last / "read_ahead_kb").read_text().strip()


@pytest.mark.parametrize("mode", ["erofs", "tree"])
def test_a_byte_that_was_read_is_in_memory_once(
    clip_with: Callable[..., ClipMachine], reference: str, mode: str
) -> None:
    machine = clip_with(layer_mode=mode, image_linger=0)
    index = str(machine.index(reference))
    for turn in ("cold", "again"):  # the second time the layer is complete: a plain file for erofs
        with OverlayMounter(settings=machine.settings).mount(index) as mount:
            root = Path(mount.rootfs_path)
            Path("/proc/sys/vm/drop_caches").write_text("1")
            assert len((root / "data").read_bytes()) == SIZE
            end = time.monotonic() + SECONDS
            while sum((found := caches(machine, reference, root)).values()) > MOST:
                assert time.monotonic() < end, (turn, found)
                time.sleep(0.5)
            assert found["container"] > 0.95, found
            if mode == "erofs":
                assert read_ahead_kib() == ("128" if turn == "cold" else "1024")
        machine.ctl("gc")
