"""Loop devices: one a layer, shared by images, given back by whoever is the last to go."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_runc.images import local, mount
from clip_runc.images.local import LocalImage
from clip_runc.linux import loop
from clip_runc.linux.mount import unmount
from tests.integration.busybox_images import entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry, wait_for
from tests.integration.image_maker import write_image, write_layer
from tests.integration.pushing import push


@pytest.fixture(scope="module")
def references(registry: DockerRegistry, scratch: Path) -> tuple[str, str]:
    """Two images of one layer in common and one of their own."""
    layout = scratch / "loops"
    common = write_layer(layout, [tar([entry("common", b"both have me\n" * 9000)])])
    found = []
    for name in ("one", "two"):
        own = write_layer(layout, [tar([entry("own", name.encode() * 9000)])])
        image = write_image(layout, [common, own], {"Cmd": ["/x"]})
        found.append(push(image, registry.host, f"loops/{name}", "1"))
    return found[0], found[1]


def backing_files(machine: ClipMachine) -> list[str]:
    """What this machine's loop devices are over."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(path.read_text().strip())
        except OSError:
            continue  # it was given back in this moment
    return sorted(one for one in found if one.startswith(str(machine.directory)))


def image_of(machine: ClipMachine, reference: str) -> LocalImage:
    machine.index(reference)
    found = local.find(machine.settings, reference)
    assert found is not None
    return found


def test_a_layer_of_two_images_has_one_device(
    clip_with: Callable[..., ClipMachine], references: tuple[str, str]
) -> None:
    machine = clip_with(layer_mode="loop", image_linger=300)
    images = [image_of(machine, reference) for reference in references]
    lowers = [Path(mount.mount_image(machine.settings, image).lower) for image in images]
    devices = backing_files(machine)
    assert len(devices) == len(set(devices)) == 5, devices  # 2 of metadata, 3 layers
    assert mount.unmount_image(machine.settings, images[0].manifest_hex)
    wait_for(lambda: len(backing_files(machine)) == 3, "the first image's devices to go")
    os.sync()
    assert (lowers[1] / "common").read_bytes() == b"both have me\n" * 9000
    assert (lowers[1] / "own").read_bytes() == b"two" * 9000
    assert mount.unmount_image(machine.settings, images[1].manifest_hex)
    wait_for(lambda: not backing_files(machine), "all devices to go")


def test_none_is_left_after_a_crash_and_gc(
    clip_with: Callable[..., ClipMachine], references: tuple[str, str]
) -> None:
    """clipd, all of it, killed with an image mounted; nobody has a lease on it."""
    machine = clip_with(layer_mode="loop", image_linger=300)
    image = image_of(machine, references[0])
    mount.mount_image(machine.settings, image)
    assert backing_files(machine)
    status = machine.status()
    for role in ("supervisor", "keeper", "server"):
        os.kill(status[role]["pid"], signal.SIGKILL)
    machine.configure(image_linger=0)
    machine.ctl("gc", check=True)
    machine.ctl("stop")
    wait_for(lambda: not backing_files(machine), "all devices to go")


def test_devices_of_others_are_left_alone(tmp_path: Path) -> None:
    """A device that is writable, or over a part of the file, is not the one that we want."""
    file = tmp_path / "file"
    file.write_bytes(bytes(4096))
    with loop.attach(str(file)) as ours, loop.share(str(file)) as again:
        assert again.path == ours.path
        other = tmp_path / "other"
        other.write_bytes(bytes(4096))
        with loop.share(str(other)) as fresh:
            assert fresh.path != ours.path
    with loop.attach(str(file), direct_io=True) as direct, loop.share(str(file)) as buffered:
        assert buffered.path != direct.path
    assert not unmount(str(file))
