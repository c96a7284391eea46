from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_runc.linux import storage

ORDERED = ("rw", "delalloc", "barrier", "auto_da_alloc", "data=ordered", "commit=5")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ORDERED, True),
        (tuple(one for one in ORDERED if not one.startswith("data=")), True),  # without a journal
        (tuple(one.replace("auto_da", "noauto_da") for one in ORDERED), False),
        (tuple(one.replace("ordered", "writeback") for one in ORDERED), False),
        (tuple(one.replace("ordered", "journal") for one in ORDERED), True),
    ],
)
def test_what_ext4_was_mounted_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], expected: bool
) -> None:
    device = tmp_path.stat().st_dev
    monkeypatch.setattr(storage, "filesystem_type", lambda _: "ext4")
    monkeypatch.setattr(storage, "_EXT4", str(tmp_path))
    asked: list[str] = []

    def readlink(path: str) -> str:
        asked.append(path)
        return "../../devices/virtual/block/dm-0"

    monkeypatch.setattr(os, "readlink", readlink)
    assert storage.keeps_order(str(tmp_path)) is False, "its options cannot be read"
    (tmp_path / "dm-0").mkdir()
    (tmp_path / "dm-0/options").write_text("\n".join(options) + "\n")
    assert storage.keeps_order(str(tmp_path)) is expected
    assert asked[0] == f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"


def test_other_file_systems() -> None:
    assert not storage.keeps_order("/proc")
    assert not storage.keeps_order("/none")
