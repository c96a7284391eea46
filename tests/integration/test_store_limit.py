"""The store stays within its limit; what goes is what no container uses; clipctl store."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip_runc import OverlayMounter
from tests.integration.busybox_images import entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import Blob, write_image, write_layer
from tests.integration.pushing import push

SIZE = 8 << 20
LIMIT = 20 << 20


@pytest.fixture(scope="module")
def references(registry: DockerRegistry, scratch: Path) -> list[str]:
    """Three images of a layer of 8 MiB each, and a shared one of 1 MiB below."""
    layout = scratch / "limited"

    def layer(name: str, size: int) -> Blob:
        data = random.Random(name).randbytes(size // 2).hex().encode()
        return write_layer(layout, [tar([entry(name, data)])])

    shared = layer("shared", 1 << 20)
    images = [write_image(layout, [shared, layer(n, SIZE)], {"Cmd": ["/x"]}) for n in "abc"]
    return [push(i, registry.host, f"limit/{n}", "1") for n, i in zip("abc", images, strict=True)]


def read_all(machine: ClipMachine, index: Path) -> None:
    with OverlayMounter(settings=machine.settings).mount(index) as mount:
        for path in Path(mount.rootfs_path).iterdir():
            name = path.name
            wanted = random.Random(name).randbytes((1 << 20 if name == "shared" else SIZE) // 2)
            assert path.read_bytes() == wanted.hex().encode(), name


def layers(machine: ClipMachine) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(
        machine.ctl("store", "ls", "--json", check=True).stdout
    )
    return found


@pytest.fixture
def machine(clip_with: Callable[..., ClipMachine]) -> Iterator[ClipMachine]:
    yield clip_with(store_limit=LIMIT, image_linger=0)


def test_layers_that_are_not_used_make_room(machine: ClipMachine, references: list[str]) -> None:
    """27 MiB are read, one image after another, within 20 MiB; the shared layer is there once."""
    for reference in references:
        read_all(machine, machine.index(reference))
        machine.ctl("gc")
        used = sum(int(str(layer["size"])) for layer in layers(machine))
        assert used <= LIMIT * 1.02
    found = layers(machine)
    assert len(found) <= 3
    assert sum(layer["length"] <= (2 << 20) for layer in found) <= 1  # type: ignore[operator]
    store = machine.status()["store"]
    assert 0 < store["used_bytes"] <= LIMIT * 1.02
    assert store["limit_bytes"] == LIMIT


def test_a_store_full_of_used_layers_serves_from_the_wire(
    machine: ClipMachine, references: list[str]
) -> None:
    mounter = OverlayMounter(settings=machine.settings)
    mounts = [mounter.mount(machine.index(reference)) for reference in references]
    try:
        for name, mount in zip("abc", mounts, strict=True):
            wanted = random.Random(name).randbytes(SIZE // 2).hex().encode()
            assert Path(mount.rootfs_path, name).read_bytes() == wanted
        assert all(layer["in_use"] for layer in layers(machine))
        assert sum(int(str(layer["size"])) for layer in layers(machine)) <= LIMIT * 1.02
        assert "0 layers removed" in machine.ctl("store", "prune", check=True).stdout
    finally:
        for mount in mounts:
            mount.unmount()


def test_verify_finds_damage_prune_removes_and_all_is_fetched_again(
    machine: ClipMachine, references: list[str]
) -> None:
    index = machine.index(references[0])
    read_all(machine, index)
    machine.ctl("stop", check=True)
    assert machine.ctl("store", "verify", check=True).stdout.count("✓") == 2
    [data] = [d for d in Path(machine.settings.store_dir).glob("*/data") if d.stat().st_size > SIZE]
    with data.open("r+b") as file:
        file.seek(SIZE // 2)
        old = file.read(1)
        file.seek(SIZE // 2)
        file.write(bytes([old[0] ^ 1]))
    bad = machine.ctl("store", "verify")
    assert bad.returncode == 1
    assert "1 bad" in bad.stdout
    read_all(machine, index)
    machine.ctl("stop", check=True)
    assert "2 layers removed" in machine.ctl("store", "prune", check=True).stdout
    assert layers(machine) == []
    read_all(machine, index)


def test_a_store_of_an_older_version_is_hashed_before_it_is_used(
    machine: ClipMachine, references: list[str]
) -> None:
    """Another magic in the record: nothing is trusted, what is right is not fetched again."""
    index = machine.index(references[0])
    read_all(machine, index)
    machine.ctl("stop", check=True)
    for record in Path(machine.settings.store_dir).glob("*/record"):
        with record.open("r+b") as file:
            file.write(b"CLIPREC\0")
    read_all(machine, index)
    assert machine.status()["fetched"] == 0
