"""Mounting without a kernel: what is noted, what is tried, what is asked of clipd."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.errors import ClipError, MountFailed
from clip_runc.images import local, mount
from clip_runc.images.local import LocalImage

HEX, DIFF = "ab" * 32, "cd" * 32


class FakeClipd:
    """Answers as clipd does and remembers what it was asked."""

    def __init__(self, complete: bool) -> None:
        self.complete = complete
        self.asked: list[str] = []

    def __enter__(self) -> FakeClipd:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def close(self) -> None:
        return

    def attach(
        self, manifest_hex: str, index_path: str, command: Sequence[str] = (), lease: str = ""
    ) -> dict[str, object]:
        self.asked.append(f"attach {manifest_hex}")
        self.wanted = (list(command), lease)
        return {"layers": [{"diff": DIFF, "complete": self.complete}], "tree": ""}

    def detach(self, manifest_hex: str) -> None:
        self.asked.append(f"detach {manifest_hex}")


class Machine:
    """A state directory, a FUSE directory that is a plain one, and mounts that only note."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
        values.setdefault("layer_mode", "auto")
        self.settings = Settings(state_dir=f"{base}/state", run_dir=f"{base}/run", **values)
        self.clipd = FakeClipd(complete=False)
        self.tried: list[tuple[str, list[str]]] = []
        self.failing: dict[str, int] = {}
        self.direct = False
        os.makedirs(f"{self.settings.fuse_dir}/layers")
        os.makedirs(f"{self.settings.fuse_dir}/images/{HEX}")
        Path(self.settings.fuse_dir, "layers", DIFF).touch()
        monkeypatch.setattr("clip_runc.fs.client.ensure_clipd", lambda settings: self.clipd)
        monkeypatch.setattr("clip_runc.fs.client.connect", lambda settings: self.clipd)
        monkeypatch.setattr(mount, "_mount_on_files", self._mount("erofs"))
        monkeypatch.setattr(mount, "_mount_on_loops", self._mount("loop"))
        monkeypatch.setattr("clip_runc.linux.mount.unmount", lambda target, lazy: False)

    def _mount(self, mode: str) -> Any:
        def work(meta: str, paths: list[str], target: str, *, direct: bool = False) -> None:
            self.direct = direct
            self.tried.append((mode, paths))
            if mode in self.failing:
                code = self.failing[mode]
                raise MountFailed(f"mount erofs: {os.strerror(code)}", errno=code)

        return work

    @property
    def image(self) -> LocalImage:
        return local.at(self.settings, HEX)

    def modes(self) -> list[str]:
        return [mode for mode, _ in self.tried]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_what_to_fetch_early_is_said_when_an_image_is_mounted(machine: Machine) -> None:
    mount.mount_image(machine.settings, machine.image, ["python3", "-V"], "ctr-1")
    assert machine.clipd.wanted == (["python3", "-V"], "ctr-1")


@pytest.mark.parametrize("complete", [True, False])
def test_only_plain_files_are_read_past_their_cache(machine: Machine, complete: bool) -> None:
    machine.clipd.complete = complete
    data = Path(machine.settings.store_dir, DIFF, "data")
    data.parent.mkdir(parents=True)
    data.write_bytes(bytes(512))
    mount.mount_image(machine.settings, machine.image)
    assert machine.direct is complete


@pytest.mark.parametrize("sectors", [True, False])
def test_and_only_where_the_disk_can(monkeypatch: pytest.MonkeyPatch, sectors: bool) -> None:
    found: list[bool] = []
    monkeypatch.setattr(
        "clip_runc.linux.mount.mount_erofs",
        lambda meta, paths, target, direct: found.append(direct),
    )
    monkeypatch.setattr("clip_runc.linux.storage.reads_sectors", lambda path: sectors)
    mount._mount_on_files("meta", ["layer"], "target", direct=True)
    mount._mount_on_files("meta", ["layer"], "target", direct=False)
    assert found == [sectors, False]


def test_the_second_container_has_no_word_with_clipd(machine: Machine) -> None:
    first = mount.mount_image(machine.settings, machine.image)
    second = mount.mount_image(machine.settings, machine.image)
    assert (first.mode, first.lower) == ("erofs", f"{machine.settings.image_mount_dir}/{HEX}")
    assert (second.mode, second.lower) == (first.mode, first.lower)
    assert machine.clipd.asked == [f"attach {HEX}"]
    assert machine.modes() == ["erofs"]


def test_auto_takes_what_works_and_remembers_it(machine: Machine) -> None:
    machine.failing = {"erofs": errno.ENOTBLK, "loop": errno.EINVAL}
    found = mount.mount_image(machine.settings, machine.image)
    assert (found.mode, found.lower) == ("tree", f"{machine.settings.fuse_dir}/images/{HEX}")
    assert machine.modes() == ["erofs", "loop"]
    mount.unmount_image(machine.settings, HEX)
    mount.mount_image(machine.settings, machine.image)
    assert machine.modes() == ["erofs", "loop"], "neither was tried again"


def test_two_images_mounted_at_once_share_no_temporary_file(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds the lock of its own image only; the mode that is remembered belongs to all."""
    rename = os.rename
    others: list[mount.MountedImage] = []

    def slow(source: str, target: str) -> None:
        if target.endswith("/mode") and not others:
            others.append(mount.MountedImage("", "", ""))
            others.append(mount.mount_image(machine.settings, local.at(machine.settings, DIFF)))
        rename(source, target)

    monkeypatch.setattr(os, "rename", slow)
    first = mount.mount_image(machine.settings, machine.image)
    assert first.mode == others[1].mode
    assert Path(machine.settings.run_dir, "mode").read_text() == first.mode


def test_a_remembered_mode_that_no_longer_works_is_no_trap(machine: Machine) -> None:
    machine.failing = {"erofs": errno.ENOTBLK}
    assert mount.mount_image(machine.settings, machine.image).mode == "loop"
    mount.unmount_image(machine.settings, HEX)
    machine.failing = {"loop": errno.ENOENT}
    assert mount.mount_image(machine.settings, machine.image).mode == "erofs"


@pytest.mark.parametrize("mode", ["erofs", "loop"])
def test_a_forced_mode_that_does_not_work_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    machine = Machine(tmp_path, monkeypatch, layer_mode=mode)
    machine.failing = {mode: errno.EINVAL}
    with pytest.raises(MountFailed, match=f'layer_mode = "{mode}".*Invalid argument') as caught:
        mount.mount_image(machine.settings, machine.image)
    assert caught.value.errno == errno.EINVAL
    assert machine.modes() == [mode]


def test_nothing_works(machine: Machine) -> None:
    machine.failing = {"erofs": errno.EPERM, "loop": errno.EPERM}
    os.rmdir(f"{machine.settings.fuse_dir}/images/{HEX}")
    with pytest.raises(MountFailed, match=r"erofs: .*loop: .*tree: "):
        mount.mount_image(machine.settings, machine.image)


@pytest.mark.parametrize(
    ("complete", "size", "through_fuse"),
    [(False, 1024, True), (True, 1024, False), (True, 1000, True), (True, None, True)],
)
def test_a_complete_layer_is_read_from_the_store(
    machine: Machine, complete: bool, size: int | None, through_fuse: bool
) -> None:
    data = Path(machine.settings.store_dir, DIFF, "data")
    if size is not None:
        data.parent.mkdir(parents=True)
        data.write_bytes(bytes(size))
    answer: dict[str, object] = {"layers": [{"diff": DIFF, "complete": complete}]}
    paths, fuse = mount.layer_paths(machine.settings, answer)
    assert fuse == through_fuse
    assert paths == [f"{machine.settings.fuse_dir}/layers/{DIFF}" if fuse else str(data)]


def test_a_layer_with_an_odd_name_is_refused(machine: Machine) -> None:
    answer: dict[str, object] = {"layers": [{"diff": "../../etc", "complete": True}]}
    with pytest.raises(ClipError, match="layer"):
        mount.layer_paths(machine.settings, answer)


@pytest.mark.parametrize(
    "note",
    ["", "erofs", "erofs x y", "erofs 0 0", "erofs 1 2 3", "tree 0 0", "\xff 1 1"],
)
def test_a_note_that_does_not_fit_means_mounting_anew(machine: Machine, note: str) -> None:
    mount.mount_image(machine.settings, machine.image)
    Path(f"{machine.settings.image_mount_dir}/{HEX}.mount").write_bytes(note.encode("latin-1"))
    mount.mount_image(machine.settings, machine.image)
    assert len(machine.clipd.asked) == 2


def test_another_fuse_mount_than_noted_means_mounting_anew(machine: Machine) -> None:
    mount.mount_image(machine.settings, machine.image)
    note = Path(f"{machine.settings.image_mount_dir}/{HEX}.mount")
    mode, device, fuse, *layers = note.read_text().split()
    assert layers == ["0", "1"]
    assert int(fuse) == os.stat(machine.settings.fuse_dir).st_dev
    note.write_text(f"{mode} {device} {int(fuse) + 1}\n")
    mount.mount_image(machine.settings, machine.image)
    assert len(machine.clipd.asked) == 2


def test_a_fuse_mount_without_a_server_means_mounting_anew(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount.mount_image(machine.settings, machine.image)

    def gone(path: str) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(os, "statvfs", gone)
    mount.mount_image(machine.settings, machine.image)
    assert len(machine.clipd.asked) == 2


def test_a_fuse_server_that_knows_no_statfs_is_alive(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount.mount_image(machine.settings, machine.image)

    def unknown(path: str) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "statvfs", unknown)
    mount.mount_image(machine.settings, machine.image)
    assert len(machine.clipd.asked) == 1


def test_an_image_with_a_lease_is_not_unmounted(machine: Machine) -> None:
    mount.mount_image(machine.settings, machine.image)
    lease = Path(machine.settings.lease_dir, HEX, "c1-0123456789abcdef01234567")
    lease.parent.mkdir(parents=True)
    lease.touch()
    assert not mount.unmount_image(machine.settings, HEX)
    assert [x.manifest_hex for x in mount.mounted_images(machine.settings)] == [HEX]
    lease.unlink()
    Path(machine.settings.control_dir).mkdir()
    Path(machine.settings.socket).touch()
    assert mount.unmount_image(machine.settings, HEX)
    assert machine.clipd.asked == [f"attach {HEX}", f"detach {HEX}"]
    assert mount.mounted_images(machine.settings) == []
    assert not mount.unmount_image(machine.settings, HEX)
    assert not os.path.exists(f"{machine.settings.image_mount_dir}/{HEX}")


def test_the_lock_of_an_image(machine: Machine) -> None:
    mount.mount_image(machine.settings, machine.image)
    guard = mount.image_lock(machine.settings, HEX)
    with pytest.raises(BlockingIOError):
        mount.image_lock(machine.settings, HEX, wait=False)
    os.close(guard)
    os.close(mount.image_lock(machine.settings, HEX, wait=False))
