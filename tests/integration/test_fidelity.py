"""A container cannot tell an index from an unpacked image: every path of one that has it all.

The oracle is ``umoci unpack`` as root, on an ext4 of its own that can hold xattrs of 64 KiB.
``docs/design/fidelity.md`` has the reason of each difference that is named here.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clip_runc import Mount, OverlayMounter
from clip_runc.errors import MountFailed
from tests.integration import torture_image as torture
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import Image, write_image, write_layer
from tests.integration.loop_disk import ext4
from tests.integration.prerequisites import in_ci, need
from tests.integration.pushing import push
from tests.integration.tar_bytes import MTIME, sparse_gnu
from tests.integration.torture_files import sparse_layer
from tests.integration.whole_tree import Tree, differences, walk

MIB = 1 << 20
# bench/fidelity asks for the sizes that the gate has no time for
FILES = int(os.environ.get("CLIP_TORTURE_FILES", "3000"))
CROWD = 100_000
ZEROS = int(os.environ.get("CLIP_TORTURE_ZEROS", str(256 * MIB)))
GIB_OF_DISK = 2 + ZEROS // (1 << 30)


@pytest.fixture(scope="module")
def disk(scratch: Path) -> Iterator[Path]:
    """Room for what umoci unpacks."""
    need("root")
    with ext4(scratch / "oracle", gib=GIB_OF_DISK, inodes=2 * FILES + 20_000) as place:
        yield place


@pytest.fixture(scope="module")
def image(scratch: Path) -> Image:
    """The torture image as a layout."""
    layout = scratch / "torture"
    blobs = [write_layer(layout, stream) for stream in torture.layers(FILES, ZEROS)]
    return write_image(layout, blobs, {})


@pytest.fixture(scope="module")
def reference(image: Image, registry: DockerRegistry) -> str:
    """The torture image in the registry."""
    return push(image, registry.host, "torture", "latest")


@pytest.fixture(scope="module")
def oracle(image: Image, disk: Path) -> Tree:
    """The torture image as umoci unpacks it."""
    subprocess.run(
        ["umoci", "unpack", "--image", f"{image.layout}:latest", disk / "bundle"],
        check=True, stdout=subprocess.DEVNULL, umask=0o022,
    )  # fmt: skip
    return walk(disk / "bundle/rootfs")


@pytest.fixture(params=["erofs", "loop", "tree"])
def machine(clip_with: Callable[..., ClipMachine], request: pytest.FixtureRequest) -> ClipMachine:
    """clip-runc with its layer mode forced."""
    if request.param != "tree":
        need("erofs")
    return clip_with(layer_mode=request.param)


@contextmanager
def mounted(machine: ClipMachine, reference: str) -> Iterator[Mount]:
    """The image as a container would see it."""
    index = machine.index(reference)
    try:
        mount = OverlayMounter(settings=machine.settings).mount(index)
    except MountFailed as error:
        if machine.chosen["layer_mode"] == "erofs" and not in_ci():
            pytest.skip(f"prerequisite EROFS straight from files: {error}")
        raise
    with mount:
        assert mount.mode == machine.chosen["layer_mode"]
        yield mount


def lower(mount: Mount) -> Path:
    """The image's own mount, below the overlay."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == mount.rootfs_path:
            options = fields[-1].split(",")
            return Path(next(x for x in options if x.startswith("lowerdir=")).partition("=")[2])
    raise AssertionError(f"{mount.rootfs_path} is not mounted")


def test_every_path_is_what_umoci_unpacks(
    machine: ClipMachine, reference: str, oracle: Tree
) -> None:
    with mounted(machine, reference) as mount:
        ours = walk(mount.rootfs_path)
        links = lower(mount).stat().st_nlink
    found = {(path, what): values for path, what, *values in differences(ours, oracle)}
    unnamed = {key: found[key] for key in found.keys() - torture.DIFFERENCES}
    assert not unnamed
    assert not torture.DIFFERENCES - found.keys(), "no difference any more"
    assert links == oracle[b""].nlink
    for path in torture.IMPLIED | torture.STALE:
        assert ours[path][:5] == (stat.S_IFDIR | 0o755, 0, 0, 0, 0), path
    assert {ours[path].mtime for path in torture.DISTURBED} == {MTIME}


def test_gnu_sparse_files_are_what_gnu_tar_extracts(
    machine: ClipMachine, registry: DockerRegistry, scratch: Path
) -> None:
    place = scratch / f"gnu-sparse-{machine.chosen['layer_mode']}"
    stream = sparse_layer(sparse_gnu)
    blob = write_layer(place / "layout", [stream])
    reference = push(write_image(place / "layout", [blob], {}), registry.host, "sparse", "latest")
    (place / "expected").mkdir()
    tar = ["tar", "--extract", "--file=-", f"--directory={place / 'expected'}", "--numeric-owner"]
    subprocess.run([*tar, "--preserve-permissions"], input=stream, check=True)
    with mounted(machine, reference) as mount:
        ours, theirs = walk(mount.rootfs_path), walk(place / "expected")
    for tree in (ours, theirs):
        del tree[b""]  # has no entry
    assert ours == theirs
    assert len(ours) == 6


@pytest.fixture(scope="module")
def crowd(registry: DockerRegistry, scratch: Path) -> str:
    """An image of one directory of 100,000 files."""
    blob = write_layer(scratch / "crowd", torture.crowd(CROWD))
    return push(write_image(scratch / "crowd", [blob], {}), registry.host, "crowd", "latest")


def test_a_directory_of_100_000_files(machine: ClipMachine, crowd: str) -> None:
    with mounted(machine, crowd) as mount:
        directory = Path(mount.rootfs_path, "crowd")
        with os.scandir(directory) as entries:
            sizes = {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
        assert sizes == {f"file-{n}": int(n % 10 == 0) for n in range(CROWD)}
        for n in range(0, CROWD, CROWD // 100):
            assert (directory / f"file-{n}").read_bytes() == b"0"
        assert not (directory / f"file-{CROWD}").exists()
