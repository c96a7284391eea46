"""What the store holds, and what goes when that is too much."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.store import eviction

MIB = 1 << 20
NAMES = [digit * 64 for digit in "abcd"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[int]:
    """Four layers of 1 MiB, the first used longest ago, and a stranger."""
    for age, name in enumerate(NAMES):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "data").write_bytes(os.urandom(MIB))
        (directory / "record").write_bytes(b"x")
        os.utime(directory, (1000 + age, 1000 + age))
    (tmp_path / "stranger").mkdir()
    (tmp_path / ("f" * 64)).symlink_to("/etc")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def names(store: int) -> list[str]:
    return [layer.name for layer in eviction.stored(store)]


def test_layers_in_the_order_of_their_use(store: int) -> None:
    assert names(store) == NAMES
    eviction.touch(store, NAMES[0])
    assert names(store) == [*NAMES[1:], NAMES[0]]
    assert all(layer.size >= MIB and layer.length == MIB for layer in eviction.stored(store))


def test_prune_spares_what_is_open_and_stops_when_it_is_enough(store: int, tmp_path: Path) -> None:
    with (tmp_path / NAMES[0] / "record").open("rb") as record:
        fcntl.flock(record, fcntl.LOCK_SH)
        assert eviction.in_use(store, NAMES[0])
        assert not eviction.in_use(store, NAMES[1])
        gone = eviction.prune(store, 3 * MIB)
    assert [layer.name for layer in gone] == [NAMES[1], NAMES[2]][: len(gone)]
    assert NAMES[0] in names(store)
    assert NAMES[3] in names(store)
    eviction.prune(store, 0)
    assert names(store) == []
    assert (tmp_path / "stranger").exists()
    assert Path("/etc").exists()


def test_only_layers_can_be_removed(store: int) -> None:
    for name in ("stranger", "../x", "", "f" * 64):
        assert not eviction.remove(store, name)


def test_a_quota_makes_room_and_then_refuses(store: int, tmp_path: Path) -> None:
    quota = eviction.Quota(store, 5 * MIB)
    with (tmp_path / NAMES[3] / "record").open("rb") as record:
        fcntl.flock(record, fcntl.LOCK_SH)
        assert quota.take(MIB // 2)
        assert len(names(store)) == 4
        assert quota.take(MIB)
        assert 1 <= len(names(store)) < 4
        assert NAMES[3] in names(store)
        assert not quota.take(5 * MIB)


def test_no_limit_looks_at_nothing() -> None:
    assert eviction.Quota(-1, 0).take(1 << 50)
