"""Many containers at once: they start, read what they should, stop, and leave nothing.

``CLIP_RUNC_CHURN`` is the number of containers of one image (``bench/churn`` takes 200), and a
tenth of it that of the images at once.  While all of them run, clipd's memory is looked at.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from tests.integration.busybox_images import entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import write_image, write_layer
from tests.integration.prerequisites import need
from tests.integration.pushing import push

CONTAINERS = int(os.environ.get("CLIP_RUNC_CHURN", "20"))
IMAGES = max(3, CONTAINERS // 10)
AT_ONCE = 8
MEMORY = 150 << 20
IDLE_SECONDS = 30.0


@cache
def content(number: int) -> bytes:
    return random.Random(number).randbytes(1 << 21).hex().encode()


@pytest.fixture(scope="module")
def references(registry: DockerRegistry, scratch: Path) -> list[str]:
    """Images of one layer in common and one of their own."""
    need("busybox")
    layout = scratch / "churn"
    busy = entry("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    common = write_layer(layout, [tar([busy])])
    found = []
    for number in range(IMAGES):
        own = write_layer(layout, [tar([entry("data", content(number))])])
        image = write_image(layout, [common, own], {"Cmd": ["/bin/busybox", "sleep", "3600"]})
        found.append(push(image, registry.host, f"churn/n{number}", "1"))
    return found


class Crowd:
    """Containers, each with an image."""

    def __init__(self, machine: ClipMachine, images: dict[str, tuple[str, bytes]]) -> None:
        self.machine = machine
        self.images = images
        for reference in {reference for reference, _ in images.values()}:
            machine.index(reference)
        first = next(iter(images.values()))[0]
        self.template = machine.bundle(first, name="template") / "config.json"

    def each(self, do: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(do, self.images))

    def start(self, name: str) -> None:
        clip, reference = self.machine, self.images[name][0]
        bundle = clip.directory / name
        bundle.mkdir()
        (bundle / "rootfs").mkdir()
        (bundle / "config.json").write_text(self.template.read_text())
        clip.edit(
            bundle, lambda spec: spec["annotations"].update({"dev.clip-runc.image": reference})
        )
        command = f"exec {clip.runtime} --root {clip.root} run -d -b {bundle} {name} "
        log = clip.directory / f"{name}.log"
        done = clip.call(["sh", "-c", f"{command} > {log} 2>&1"])
        assert done.returncode == 0, log.read_text()

    def read(self, name: str) -> None:
        done = self.machine.runc("exec", name, "/bin/busybox", "sha256sum", "/data", check=True)
        assert done.stdout.split()[0] == hashlib.sha256(self.images[name][1]).hexdigest()

    def stop(self, name: str) -> None:
        self.machine.runc("delete", "--force", name, check=True)

    def forget(self) -> None:
        """Their bundles go, so that the same names can start again."""
        for name in self.images:
            shutil.rmtree(self.machine.directory / name)


def memory(machine: ClipMachine) -> dict[str, int]:
    """Bytes that each of clipd's processes has in memory; what they share is divided."""
    status = machine.status()
    found = {}
    for role in ("server", "supervisor", "keeper"):
        rollup = Path(f"/proc/{status[role]['pid']}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        found[role] = int(line.split()[1]) << 10
    return found


def is_modest(machine: ClipMachine) -> bool:
    """Whether clipd, once what was read is served, holds no more than it may."""
    deadline = time.monotonic() + IDLE_SECONDS
    while sum((found := memory(machine)).values()) > MEMORY and time.monotonic() < deadline:
        time.sleep(0.5)
    print("MB:", {role: count >> 20 for role, count in found.items()})
    return sum(found.values()) <= MEMORY


def churn(machine: ClipMachine, images: dict[str, tuple[str, bytes]]) -> None:
    crowd = Crowd(machine, images)
    try:
        crowd.each(crowd.start)
        crowd.each(crowd.read)
        assert len(machine.containers_left()) >= 3 * len(images)
        assert is_modest(machine)
    finally:
        crowd.each(crowd.stop)
    assert machine.containers_left() == []


def test_many_containers_of_one_image(clip: ClipMachine, references: list[str]) -> None:
    churn(clip, {f"c{n}": (references[0], content(0)) for n in range(CONTAINERS)})


def test_many_images_at_once(clip: ClipMachine, references: list[str]) -> None:
    """As many containers, of all images in turn."""
    chosen = [n % IMAGES for n in range(CONTAINERS)]
    churn(clip, {f"i{n}": (references[k], content(k)) for n, k in enumerate(chosen)})
