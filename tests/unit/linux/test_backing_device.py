from __future__ import annotations

from pathlib import Path

import pytest

from clip_runc.linux import backing_device


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(backing_device, "_DIRECTORY", str(tmp_path))
    for name in ("erofs-3", "erofs-17", "0:44", "254:0"):
        add(tmp_path, name)
    return tmp_path


def add(sysfs: Path, name: str) -> None:
    (sysfs / name).mkdir()
    (sysfs / name / "read_ahead_kb").write_text("128\n")


def value(sysfs: Path, name: str) -> str:
    return (sysfs / name / "read_ahead_kb").read_text()


def test_of_a_name(sysfs: Path) -> None:
    assert backing_device.set_read_ahead("0:44", 1024)
    assert value(sysfs, "0:44").startswith("1024")
    assert not backing_device.set_read_ahead("0:45", 1024)


def test_of_what_a_mount_has_added(sysfs: Path) -> None:
    before = backing_device.of_erofs()
    assert before == {"erofs-3", "erofs-17"}
    assert not backing_device.set_of_added(before, 1024)
    add(sysfs, "erofs-20")
    assert backing_device.set_of_added(before, 1024)
    assert [value(sysfs, name)[:4] for name in ("erofs-3", "erofs-20")] == ["128\n", "1024"]


def test_of_two_nobody_knows_which_is_ours(sysfs: Path) -> None:
    before = backing_device.of_erofs()
    add(sysfs, "erofs-20")
    add(sysfs, "erofs-21")
    assert not backing_device.set_of_added(before, 1024)
    assert value(sysfs, "erofs-20") == value(sysfs, "erofs-21") == "128\n"


def test_a_machine_without_sysfs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backing_device, "_DIRECTORY", str(tmp_path / "none"))
    assert backing_device.of_erofs() == set()
    assert not backing_device.set_of_added((), 1024)
