"""The data file, and noticing strangers."""

from __future__ import annotations

import os
import threading
import time

import pytest

from clip_runc.store.data_file import DataFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


def open_file(path, size=4096, writable=True):
    file = DataFile(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), size, writable=writable)
    file.accept()
    return file


def test_our_writes_are_not_changes(path):
    file = open_file(path)
    assert os.fstat(file.fd).st_size == 4096
    for n in range(20):
        file.write(n * 100, b"x" * 100)
        assert not file.changed()
        time.sleep(0.002)
    assert file.read(0, 4096) == b"x" * 2000 + bytes(2096)
    file.sync()


def test_a_foreign_write_and_a_truncation_are(path):
    file = open_file(path)
    file.write(0, b"good")
    time.sleep(0.02)  # more than a clock tick
    with path.open("r+b") as other:
        other.write(b"evil")
    assert file.changed()
    file.accept()
    assert not file.changed()
    os.truncate(path, 10)
    assert file.changed() and file.read(5, 100) == b"\0" * 5
    file.accept()
    assert not file.changed() and os.fstat(file.fd).st_size == 4096


def test_many_writers_are_never_taken_for_strangers(path):
    file = open_file(path, 1 << 20)
    stop, wrong = threading.Event(), []

    def watch() -> None:
        while not stop.is_set():
            wrong.extend([1] * file.changed())

    def write(base: int) -> None:
        for n in range(200):
            file.write((base * 200 + n) * 512, b"y" * 512)

    watcher = threading.Thread(target=watch)
    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in [watcher, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    watcher.join()
    assert not wrong


def test_a_read_only_file_refuses_writes_and_keeps_its_size(path):
    path.write_bytes(b"abc")
    file = open_file(path, writable=False)
    with pytest.raises(OSError, match="Read-only"):
        file.write(0, b"x")
    assert path.read_bytes() == b"abc" and not file.changed()


def test_the_descriptor_is_closed_with_the_last_reference(path):
    file = open_file(path)
    number = file.fd
    del file
    with pytest.raises(OSError):
        os.fstat(number)
