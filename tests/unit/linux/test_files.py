"""Atomic writes, locks and private directories."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from clip_runc.errors import StoreError
from clip_runc.linux.files import boot_id, lock, make_private_dir, write_atomic


def test_write_replaces_and_sets_the_mode_whatever_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    before = os.umask(0o077)
    try:
        write_atomic(str(target), b"new", 0o644)
    finally:
        os.umask(before)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o7777 == 0o644
    assert os.listdir(tmp_path) == ["file"]


def test_write_below_a_directory_descriptor(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        write_atomic("name", b"data", dir_fd=fd)
    finally:
        os.close(fd)
    assert (tmp_path / "name").read_bytes() == b"data"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(str(tmp_path / "target"), b"data")
    assert os.listdir(tmp_path) == ["target"]


def test_the_lock_is_exclusive(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with lock(path), pytest.raises(BlockingIOError), lock(path, wait=False):
        raise AssertionError("two hold the lock")
    with lock(path, wait=False):
        assert os.path.exists(path)


def test_a_lock_file_that_was_removed_does_not_let_two_in(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    entered = threading.Event()

    def second() -> None:
        with lock(path):
            entered.set()
            with pytest.raises(BlockingIOError), lock(path, wait=False):
                raise AssertionError("two hold the lock")

    with lock(path):
        thread = threading.Thread(target=second)
        thread.start()
        os.unlink(path)
    thread.join()
    assert entered.is_set()


def test_private_directory_gets_its_mode_back(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_private_dir(str(path))
    path.chmod(0o777)
    make_private_dir(str(path))
    assert path.stat().st_mode & 0o7777 == 0o700


def test_a_symlink_is_no_private_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(StoreError, match="not a directory that belongs to"):
        make_private_dir(str(tmp_path / "link"))


def test_boot_id_is_stable() -> None:
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36
