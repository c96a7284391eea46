"""What a container has not read is fetched behind it, and the next mount needs no FUSE."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.busybox_images import entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import Image, write_image, write_layer
from tests.integration.prerequisites import need
from tests.integration.pushing import push

DATA = 24 << 20


@pytest.fixture(scope="module")
def image(scratch: Path) -> Image:
    """A shell, and a layer of which it needs nothing."""
    need("busybox", "erofs")
    layout = scratch / "background"
    busy = entry("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    data = entry("data", random.Random(8).randbytes(DATA))
    layers = [write_layer(layout, [tar([one])]) for one in (busy, data)]
    return write_image(layout, layers, {"Cmd": ["/bin/busybox", "sleep", "3600"]})


@pytest.fixture
def machine_with(
    clip_with: Callable[..., ClipMachine], registry: DockerRegistry, image: Image
) -> Callable[..., tuple[ClipMachine, str]]:
    def make(**settings: Any) -> tuple[ClipMachine, str]:
        reference = push(image, registry.host, "background/data", "1")
        machine = clip_with(layer_mode="erofs", background_fetch=True, **settings)
        machine.index(reference)
        return machine, reference

    return make


def start(machine: ClipMachine, reference: str, name: str) -> None:
    bundle = machine.bundle(reference, name=name)
    command = f"exec {machine.runtime} --root {machine.root} run -d -b {bundle} {name}"
    done = machine.call(["sh", "-c", f"{command} > {machine.directory}/{name}.log 2>&1"])
    assert done.returncode == 0


def wait_for(machine: ClipMachine, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + 60
    while not good(status := machine.status()):
        assert time.monotonic() < end, status
        time.sleep(0.1)
    return status


def complete(status: dict[str, Any]) -> bool:
    return all(layer["complete"] for image in status["images"] for layer in image["layers"])


def test_the_next_mount_is_of_plain_files(
    machine_with: Callable[..., tuple[ClipMachine, str]],
) -> None:
    machine, reference = machine_with(image_linger=0)
    start(machine, reference, "one")
    assert "lazy" in machine.ctl("ps", check=True).stdout
    status = wait_for(machine, lambda s: bool(s["images"]) and complete(s))
    assert status["background"]["enabled"]
    assert status["background"]["bytes"] > DATA // 2
    wait_for(machine, lambda s: not s["background"]["image"])
    metrics = machine.ctl("metrics", check=True).stdout
    assert f"clip_runc_background_bytes_total {status['background']['bytes']}" in metrics
    assert "clip_runc_background_images 0" in metrics
    assert "background" in machine.ctl("status", check=True).stdout
    assert "image-complete" in Path(machine.settings.events_file).read_text()
    machine.runc("delete", "--force", "one", check=True)
    wait_for(machine, lambda s: not s["mounts"])
    start(machine, reference, "two")
    note = next(Path(machine.settings.image_mount_dir).glob("*.mount")).read_text().split()
    assert note[0] == "erofs"
    assert note[2] == "0"  # no data of the mount comes through FUSE
    before = sum(machine.status()["store"][key] for key in ("hits", "waits"))
    done = machine.runc("exec", "two", "/bin/busybox", "sha256sum", "/data", check=True)
    assert done.stdout.split()[1] == "/data"
    after = sum(machine.status()["store"][key] for key in ("hits", "waits"))
    assert after == before
    machine.runc("delete", "--force", "two", check=True)


def test_it_ends_with_the_last_container(
    machine_with: Callable[..., tuple[ClipMachine, str]],
) -> None:
    machine, reference = machine_with(image_linger=300, background_rate=1 << 20)
    start(machine, reference, "one")
    status = wait_for(machine, lambda s: s["background"].get("image"))
    assert ", fetching" in machine.ctl("ps", check=True).stdout
    machine.runc("delete", "--force", "one", check=True)
    status = wait_for(machine, lambda s: not s["background"]["image"])
    time.sleep(1)
    again = machine.status()
    assert again["images"] and not complete(again)
    assert again["background"]["bytes"] == status["background"]["bytes"] < DATA
