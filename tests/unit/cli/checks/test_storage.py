"""Storage and permissions."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clip_runc.cli.checks import storage
from clip_runc.cli.checks.finding import FAIL, OK, WARN
from clip_runc.config import Settings


def settings(base: Path) -> Settings:
    return Settings(state_dir=f"{base}/state", run_dir=f"{base}/run", server_uid=os.getuid() or 7)


def test_memory_is_refused() -> None:
    found = storage.check(Settings(state_dir="/dev/shm/clip", run_dir="/nonexistent"))
    assert (found[0].level, found[0].subject) == (FAIL, "storage")
    assert "/var/lib/clip" in found[0].remedy


def test_the_nearest_directory_is_judged(tmp_path: Path) -> None:
    assert storage.existing(f"{tmp_path}/a/b/c") == str(tmp_path.resolve())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("blocks", "inodes", "level"),
    [(100 << 20, 1 << 20, OK), (1 << 20, 1 << 20, WARN), (1, 1 << 20, FAIL), (100 << 20, 5, WARN)],
)
def test_space(blocks: int, inodes: int, level: int) -> None:
    disk: Any = SimpleNamespace(f_bavail=blocks, f_frsize=1024, f_files=1 << 24, f_favail=inodes)
    assert storage.space("/x", disk).level == level


def test_what_is_open_to_others_is_told(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("prerequisite root: owners are those of root")
    own = settings(tmp_path)
    assert [one.level for one in storage.permissions(own)] == [OK]
    os.makedirs(own.store_dir, 0o700)
    os.chown(own.store_dir, own.server_uid, own.server_uid)
    os.makedirs(own.container_dir)
    os.chmod(own.container_dir, 0o755)
    found = storage.permissions(own)
    assert [(one.level, own.container_dir in one.text) for one in found] == [(FAIL, True)]
    assert found[0].remedy == f"chmod 700 {own.container_dir}"
    os.chmod(own.container_dir, 0o700)
    os.chown(own.store_dir, 0, 0)
    assert "belongs to uid 0" in storage.permissions(own)[0].text
