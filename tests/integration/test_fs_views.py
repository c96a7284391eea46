"""What clipd serves is what the image holds: layer files, the tree, EROFS over both ways."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_runc.errors import ClipError, ServerError
from clip_runc.fs import client
from clip_runc.images import local
from clip_runc.linux import loop
from clip_runc.linux.mount import mount_erofs, unmount
from tests.integration.clip_machine import ClipMachine
from tests.integration.image_maker import Image


def walk(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything of each file below ``root``, by path."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        info = path.lstat()
        content = ""
        if stat.S_ISREG(info.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        names = os.listxattr(path, follow_symlinks=False)
        xattrs = {n: os.getxattr(path, n, follow_symlinks=False) for n in sorted(names)}
        size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
        found[str(path.relative_to(root))] = (
            info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_nlink,
            info.st_rdev, size, content, str(xattrs),
        )  # fmt: skip
    return found


class Attached:
    def __init__(self, machine: ClipMachine, reference: str) -> None:
        self.machine = machine
        machine.index(reference)
        found = local.find(machine.settings, reference)
        assert found is not None
        self.local = found
        with client.ensure_clipd(machine.settings) as clipd:
            self.answer: Any = clipd.attach(found.manifest_hex, found.index_path)

    @property
    def tree(self) -> Path:
        return Path(self.answer["tree"])

    def layer(self, number: int) -> Path:
        name = self.answer["layers"][number]["file"]
        return Path(self.machine.settings.fuse_dir) / "layers" / name


@pytest.fixture
def attached(clip_with: Callable[..., ClipMachine], busybox_ref: str) -> Attached:
    return Attached(clip_with(image_linger=300), busybox_ref)


@pytest.fixture
def target(attached: Attached) -> Iterator[Path]:
    path = attached.machine.directory / "mnt"
    path.mkdir()
    yield path
    while unmount(str(path)):
        continue


def test_a_layer_file_is_the_tar_stream_padded(attached: Attached, busybox_image: Image) -> None:
    for number, blob in enumerate(busybox_image.layers):
        entry = attached.answer["layers"][number]
        assert entry["diff"] == blob.diff_id.removeprefix("sha256:")
        data = attached.layer(number).read_bytes()
        assert len(data) == -(-entry["size"] // 512) * 512
        assert hashlib.sha256(data[: entry["size"]]).hexdigest() == entry["diff"]
        assert data[entry["size"] :].strip(b"\0") == b""
        by_diff = Path(attached.machine.settings.fuse_dir) / "layers" / entry["diff"]
        assert by_diff.stat().st_ino == attached.layer(number).stat().st_ino
        assert attached.layer(number).stat().st_mode == stat.S_IFREG | 0o400


def test_the_tree_is_what_the_kernel_sees_in_erofs(attached: Attached, target: Path) -> None:
    layers = [str(attached.layer(n)) for n in range(len(attached.answer["layers"]))]
    mount_erofs(attached.local.erofs_path, layers, str(target))
    seen = walk(target)
    assert len(seen) > 10
    assert walk(attached.tree) == seen


def test_loop_devices_over_the_same_files(attached: Attached, target: Path) -> None:
    layers = [str(attached.layer(n)) for n in range(len(attached.answer["layers"]))]
    devices = [loop.attach(path) for path in (attached.local.erofs_path, *layers)]
    try:
        mount_erofs(devices[0].path, [d.path for d in devices[1:]], str(target))
    finally:
        for device in devices:
            device.close()
    assert walk(target) == walk(attached.tree)
    unmount(str(target))
    for device in devices:
        backing = Path(f"/sys/block/{Path(device.path).name}/loop/backing_file")
        assert not backing.exists() or str(attached.machine.directory) not in backing.read_text()


def test_only_reading_is_possible(attached: Attached) -> None:
    for act in (
        lambda: (attached.tree / "new").write_text("x"),
        lambda: os.unlink(attached.tree / "etc"),
        lambda: os.open(attached.layer(0), os.O_RDWR),
    ):
        with pytest.raises(OSError) as caught:
            act()
        assert caught.value.errno == errno.EROFS


def test_names_that_are_not_there(attached: Attached) -> None:
    top = Path(attached.machine.settings.fuse_dir)
    for path in (attached.tree / "no/such", top / "x", top / "layers" / ("0" * 64)):
        with pytest.raises(FileNotFoundError):
            os.stat(path)


def test_detached_is_gone_and_comes_back_under_the_same_numbers(attached: Attached) -> None:
    before = attached.tree.stat().st_ino
    with client.ensure_clipd(attached.machine.settings) as clipd:
        clipd.detach(attached.local.manifest_hex)
        with pytest.raises(OSError):
            os.stat(attached.tree)
        clipd.detach(attached.local.manifest_hex)
        clipd.attach(attached.local.manifest_hex, attached.local.index_path)
    assert attached.tree.stat().st_ino == before


def test_an_index_of_another_image_is_refused(attached: Attached) -> None:
    with client.ensure_clipd(attached.machine.settings) as clipd:
        with pytest.raises(ClipError, match="the index is of sha256:"):
            clipd.attach("0" * 64, attached.local.index_path)
        with pytest.raises(ServerError, match="No such file"):
            clipd.attach("0" * 64, "/nowhere/x.clip")
        with pytest.raises(ClipError):
            clipd.attach("0" * 64, "/etc/passwd")
        status: Any = clipd.status()
    assert [image["manifest"] for image in status["images"]] == [attached.local.manifest_hex]


def test_an_idle_image_is_let_go(clip: ClipMachine, busybox_ref: str) -> None:
    import time

    found = Attached(clip, busybox_ref)  # image_linger is 0 there
    end = time.monotonic() + 30
    with client.ensure_clipd(found.machine.settings) as clipd:
        while clipd.status()["images"]:
            assert time.monotonic() < end
            time.sleep(0.1)
