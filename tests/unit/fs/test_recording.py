"""What the server notes of reads and fetches."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.errors import RegistryUnreachable
from clip_runc.fs.recording import Observed, ObservedFetcher, Observers
from clip_runc.index.model import Chunk, Layer
from clip_runc.store import ChunkStore, LayerReader

SIZE = 4096
DATA = b"".join(bytes([n]) * SIZE for n in range(8))


class Fetcher:
    """The blob in memory, uncompressed; or a registry that is away."""

    def __init__(self) -> None:
        self.away = False

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        if self.away:
            raise RegistryUnreachable("away")
        return DATA[start:end]

    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        yield from (DATA[at : at + SIZE] for at in range(start, size, SIZE))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[LayerReader]:
    """A layer of eight chunks."""
    chunks = tuple(
        Chunk(at, at + SIZE, at, at + SIZE, hashlib.sha256(DATA[at : at + SIZE]).digest())
        for at in range(0, len(DATA), SIZE)
    )
    digest = "sha256:" + hashlib.sha256(DATA).hexdigest()
    layer = Layer(digest, digest, "x", "none", "none", len(DATA), len(DATA), chunks)
    directory = os.open(tmp_path, os.O_RDONLY)
    store = ChunkStore(directory, boot_id="boot")
    yield store.open_layer(layer, lambda _: b"", Fetcher())
    store.close()
    os.close(directory)


def test_chunks_are_noted_when_they_are_first_wanted(reader: LayerReader) -> None:
    seen = Observed(reader)
    assert seen.read_cached(5 * SIZE, 10) is None
    assert seen.request(5 * SIZE + 10, 2 * SIZE).result(10) == DATA[5 * SIZE + 10 :][: 2 * SIZE]
    assert seen.request(100, 1).result(10) == b"\0"
    rows = seen.touched()
    assert [row[0] for row in rows] == [5, 6, 7, 0]
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert all(row[2] >= row[1] for row in rows)
    assert [(row[2], row[3], row[4]) for row in seen.waits] == [
        (5 * SIZE + 10, 2 * SIZE, 1),
        (100, 1, 1),
    ]


def test_hits_are_counted_by_tenths_of_a_second(reader: LayerReader) -> None:
    seen = Observed(reader)
    reader.request(0, 1).result(10)
    end = time.monotonic() + 30
    while not reader.present() and time.monotonic() < end:  # a read is served before it is kept
        time.sleep(0.002)
    for _ in range(50):
        assert seen.read_cached(0, 10) == bytes(10)
    assert sum(row[1] for row in seen.hits) == 50
    assert sum(row[2] for row in seen.hits) == 500
    assert len(seen.hits) < 10


def test_beyond_the_end_there_is_nothing_to_note(reader: LayerReader) -> None:
    seen = Observed(reader)
    assert seen.read_cached(len(DATA), 10) == b""
    assert seen.request(len(DATA) + 5, 10).result(10) == b""
    assert not seen.touched()


def test_one_for_each_reader_as_long_as_it_is_used(reader: LayerReader) -> None:
    observers = Observers()
    seen = observers.of(reader)
    assert observers.of(reader) is seen
    seen.first[0] = 1.0
    assert observers.of(reader).touched()
    del seen
    assert not observers.of(reader).touched()


def test_fetches_are_noted_those_that_fail_too() -> None:
    fetcher = Fetcher()
    rows: deque[tuple[float, float, str, int, int, bool]] = deque()
    seen = ObservedFetcher(fetcher, rows)
    assert seen.read_range("sha256:x", 10, 20) == DATA[10:20]
    fetcher.away = True
    with pytest.raises(RegistryUnreachable):
        seen.read_range("sha256:x", 10, 30)
    assert b"".join(seen.stream("sha256:y", len(DATA), SIZE)) == DATA[SIZE:]
    assert [row[2:] for row in rows] == [
        ("sha256:x", 10, 20, True),
        ("sha256:x", 10, 30, False),
        ("sha256:y", SIZE, len(DATA), True),
    ]
