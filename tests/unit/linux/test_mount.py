"""Errors in words; the mounts themselves are tested in tests/integration."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

from clip_runc.errors import MountFailed, StorageRefused
from clip_runc.linux import mount, syscalls
from clip_runc.linux.storage import reads_sectors


def test_a_missing_file_system_says_so(tmp_path: Path) -> None:
    with pytest.raises(MountFailed, match="mount nosuchfs clip at") as caught:
        mount.mount_filesystem("nosuchfs", "clip", [], str(tmp_path), 0)
    assert caught.value.errno in (errno.ENODEV, errno.EPERM)
    assert caught.value.hint
    assert pickle.loads(pickle.dumps(caught.value)).errno == caught.value.errno


def test_options_beyond_a_page_are_refused_with_the_size(tmp_path: Path) -> None:
    with pytest.raises(MountFailed, match="5008 bytes of options"):
        mount.mount_filesystem("overlay", "x", [("lowerdir", "x" * 4999)], str(tmp_path), 0)


def test_unmount_of_nothing_is_false(tmp_path: Path) -> None:
    assert mount.unmount(str(tmp_path / "nothing")) is False


@pytest.mark.parametrize("path", ["/dev/shm", "/dev/shm/a/b/c"])
def test_memory_is_no_place_for_layers(path: str) -> None:
    with pytest.raises(StorageRefused, match="is on tmpfs") as caught:
        mount.refuse_unsuitable(path)
    assert "/var/lib/clip" in caught.value.hint


def test_proc_has_a_name() -> None:
    assert mount.filesystem_type("/proc") == "proc"


@pytest.mark.parametrize(
    ("machine", "expected"), [("x86_64", 430), ("aarch64", 430), ("riscv64", 430), ("alpha", 540)]
)
def test_numbers_of_calls(machine: str, expected: int) -> None:
    assert syscalls.number("fsopen", machine) == expected


def test_files_that_can_be_read_in_sectors(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    assert reads_sectors(str(path)) or mount.filesystem_type(str(tmp_path)) != "ext4"
    assert not reads_sectors("/proc/self/status")
    assert not reads_sectors(str(tmp_path / "nothing"))


def test_erofs_is_mounted_otherwise_where_direct_reads_are_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[list[tuple[str, str | None]]] = []

    def refuse(kind: str, meta: str, options: list[tuple[str, str | None]], *_: object) -> None:
        tried.append(options)
        if ("directio", None) in options:
            raise MountFailed("unknown option", errno=errno.EINVAL)

    monkeypatch.setattr(mount, "mount_filesystem", refuse)
    mount.mount_erofs("meta", ["layer"], "target", direct=True)
    assert tried == [[("device", "layer"), ("directio", None)], [("device", "layer")]]
