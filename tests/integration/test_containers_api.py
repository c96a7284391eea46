"""``OverlayMounter`` and the life of an image mount, with a clipd of our own."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.containers.api import OverlayMounter
from clip_runc.containers.gc import gc
from clip_runc.errors import BundleError, IndexFormatError, StorageRefused
from clip_runc.fs.client import connect
from clip_runc.images import request
from clip_runc.images.local import LocalImage
from clip_runc.linux.mount import unmount
from clip_runc.linux.mountinfo import mounts
from clip_runc.registry.fake import FakeRegistry
from tests.unit.images.small_clip import FILES, SmallImage

IMAGE = SmallImage({**FILES, "etc": None, "etc/data": b"0123456789" * 100_000})


class Host:
    """A registry, the directories of a machine, and an image that is indexed."""

    def __init__(self, base: Path, fake: FakeRegistry) -> None:
        self.base = base
        self.settings = Settings(
            state_dir=f"{base}/state", run_dir=f"{base}/run", read_timeout=5, image_linger=0
        )
        blobs = [IMAGE.blobs[layer.digest] for layer in IMAGE.layers]
        fake.add_image("team/app", "1", blobs, diff_ids=IMAGE.diff_ids)
        self.image: LocalImage = request.build(self.settings, str(fake.reference("team/app", "1")))

    @property
    def mounter(self) -> OverlayMounter:
        return OverlayMounter(settings=self.settings)

    def mounted(self) -> list[str]:
        return [x.target for x in mounts() if x.target.startswith(f"{self.base}/")]

    def kill_clipd(self) -> None:
        """Every process of it at once, as the kernel's OOM killer might."""
        client = connect(self.settings)
        assert client is not None
        with client:
            status: Any = client.status()
        pids = [status[name]["pid"] for name in ("supervisor", "keeper", "server")]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 30
        while any(map(_alive, pids)) and time.monotonic() < end:
            time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def host() -> Iterator[Host]:
    base = Path(tempfile.mkdtemp(prefix="clip-api-", dir="/var/tmp"))
    with FakeRegistry() as fake:
        found = Host(base, fake)
        try:
            yield found
        finally:
            for target in reversed(found.mounted()):
                if not target.endswith("/run/fs"):
                    unmount(target)
            client = connect(found.settings)
            if client is not None:
                with client:
                    client.stop()
            for target in reversed(found.mounted()):
                unmount(target)
            shutil.rmtree(base)


def test_a_mount_with_a_name(host: Host) -> None:
    mount = host.mounter.mount(host.image, "look")
    assert Path(mount.rootfs_path, "hello").read_bytes() == FILES["hello"]
    with pytest.raises(BundleError, match="mounted already"):
        host.mounter.mount(host.image, "look")
    assert gc(host.settings) == []
    again = host.mounter.open("look")
    assert again.rootfs_path == mount.rootfs_path
    again.unmount()
    with pytest.raises(BundleError, match="look"):
        host.mounter.open("look")
    assert host.mounted() == [host.settings.fuse_dir], "image_linger is 0"


def test_mounts_without_a_name_are_each_their_own(host: Host) -> None:
    with host.mounter.mount(host.image) as one, host.mounter.mount(host.image) as other:
        Path(one.rootfs_path, "new").write_text("one")
        assert not Path(other.rootfs_path, "new").exists()
    assert host.mounted() == [host.settings.fuse_dir]


def test_memory_is_refused_with_the_reason(host: Host) -> None:
    with pytest.raises(StorageRefused, match=r"/dev/shm.*persistent storage"):
        OverlayMounter(mount_base="/dev/shm/clip", settings=host.settings)


def test_what_is_no_index(host: Host, tmp_path: Path) -> None:
    (tmp_path / "x.clip").write_bytes(b"x")
    with pytest.raises(IndexFormatError):
        host.mounter.mount(tmp_path / "x.clip")


@pytest.mark.parametrize("mode", ["erofs", "loop", "tree"])
def test_after_clipd_died_altogether_the_next_container_runs(host: Host, mode: str) -> None:
    """The mount of before is dead: taken away or replaced, never stacked upon."""
    host.settings.layer_mode = mode
    before = host.mounter.mount(host.image, "before")
    assert before.mode == mode
    host.kill_clipd()
    with host.mounter.mount(host.image, "after") as after:
        data = Path(after.rootfs_path, "etc/data").read_bytes()
        assert data == b"0123456789" * 100_000
        lowers = [x for x in mounts() if x.target.startswith(host.settings.image_mount_dir)]
        assert len(lowers) == (0 if mode == "tree" else 1)
    before.unmount()
    assert host.mounted() in ([host.settings.fuse_dir], [])


def test_reading_through_a_dead_clipd_is_an_error_and_unmount_is_not(host: Host) -> None:
    shutil.rmtree(host.settings.store_dir)  # indexing kept the bytes: the disk would serve them
    mount = host.mounter.mount(host.image)
    host.kill_clipd()
    began = time.monotonic()
    with pytest.raises(OSError) as caught:
        Path(mount.rootfs_path, "etc/data").read_bytes()
    assert caught.value.errno in (errno.ENOTCONN, errno.EIO, errno.ECONNABORTED)
    mount.unmount()
    assert time.monotonic() - began < 30
