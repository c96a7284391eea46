"""Large files past the page cache, on the disk that the tests run on."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.linux import direct_io
from clip_runc.linux.direct_io import SequentialFile
from tests.integration.prerequisites import need

PIECE = 8192


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(direct_io, "PIECE", PIECE)
    monkeypatch.setattr(direct_io, "_TRIED", 2 * PIECE)
    monkeypatch.setattr(direct_io, "SLOWEST", 0)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        fd = os.open(path, os.O_RDONLY)
        yield fd
        os.close(fd)


def written(directory: int, pieces: list[bytes]) -> SequentialFile:
    file = SequentialFile(directory)
    for piece in pieces:
        file.append(piece)
    file.finish()
    assert os.pread(file.fd, 1 << 20, 0) == b"".join(pieces)
    return file


def cached(file: SequentialFile) -> int:
    """Bytes of it in the page cache."""
    need("fincore")
    path = f"/proc/self/fd/{file.fd}"
    command = ["fincore", "--bytes", "--noheadings", "--output", "res", path]
    return int(subprocess.run(command, check=True, capture_output=True, pass_fds=[file.fd]).stdout)


@given(st.lists(st.integers(0, 3 * PIECE), max_size=6))
def test_pieces_of_any_size_follow_each_other(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        patch.setattr(direct_io, "PIECE", PIECE)
        fd = os.open(path, os.O_RDONLY)
        written(fd, [os.urandom(size) for size in sizes]).close()
        os.close(fd)


def test_whole_pieces_are_not_in_the_page_cache(directory: int) -> None:
    file = SequentialFile(directory)
    file.append(os.urandom(6 * PIECE))
    file.finish()
    assert cached(file) == file.cached == 0
    file.close()


def test_a_slow_disk_has_the_page_cache_before_it(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_io, "SLOWEST", math.inf)
    file = SequentialFile(directory)
    file.append(os.urandom(6 * PIECE))
    file.finish()
    assert cached(file) == file.cached == 4 * PIECE
    file.close()


def test_a_file_system_that_does_not_write_so(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    written(directory, [os.urandom(5 * PIECE + 7)]).close()


def test_one_that_does_not_open_so(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def opened(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", opened)
    written(directory, [os.urandom(5 * PIECE + 7)]).close()


def test_a_write_that_fails_is_told_at_the_next(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    file = SequentialFile(directory)
    file.append(bytes(PIECE))
    with pytest.raises(OSError, match="No space"):
        file.append(bytes(PIECE))
    file.close()
