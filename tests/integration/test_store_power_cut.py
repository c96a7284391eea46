"""Power goes while the store writes, and the disk had more in its cache than it had said.

The store lies on an ext4 over a disk that records its writes (``recording_disk``).  For many
moments the disk is built as a power cut may leave it, mounted, and the store opened as in the
next boot.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from clip_runc.errors import ClipError, RegistryUnreachable
from clip_runc.index.model import Chunk, Layer
from clip_runc.linux.mount import unmount
from clip_runc.store import ChunkStore, LayerReader
from tests.integration.prerequisites import need
from tests.integration.recording_disk import Journal, recording

MIB = 64
SIZE = 8 << 20
CHUNK = 128 << 10
CUTS = int(os.environ.get("CLIP_RUNC_POWER_CUTS", "30"))
BOOT, NEXT_BOOT = "the boot before", "the boot after"


class Blob:
    """A registry with one uncompressed blob, until it is ``away``."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.away = False
        self.fetched = 0

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        if self.away:
            raise RegistryUnreachable("the registry is away")
        self.fetched += end - start
        return self.data[start:end]

    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        yield self.data[start:]


class Written(NamedTuple):
    """What was written: the store from the moment ``begun`` on, and it is whole at ``complete``."""

    layer: Layer
    blob: Blob
    journal: Journal
    begun: int
    complete: int


def layer_of(data: bytes) -> Layer:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    chunks = tuple(
        Chunk(at, at + CHUNK, at, at + CHUNK, hashlib.sha256(data[at : at + CHUNK]).digest())
        for at in range(0, SIZE, CHUNK)
    )
    return Layer(digest, digest, "", "none", "none", SIZE, SIZE, chunks)


@contextmanager
def mounted(disk: Path, target: Path, options: str = "loop") -> Iterator[Path]:
    subprocess.run(["mount", "-o", options, str(disk), str(target)], check=True)
    try:
        yield target
    finally:
        unmount(str(target), lazy=False)


def open_store(path: Path, boot: str) -> ChunkStore:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return ChunkStore(fd, boot_id=boot, threads=2)
    finally:
        os.close(fd)


def fill(path: Path, layer: Layer, blob: Blob) -> None:
    """Read all in any order; the record reaches the disk before many of the data it is about."""
    store = open_store(path, BOOT)
    reader = store.open_layer(layer, lambda _: b"", blob)
    order = random.Random(3).sample(range(0, SIZE, CHUNK), SIZE // CHUNK)
    record = os.open(path / layer.diff_hex / "record", os.O_RDONLY)
    for number, at in enumerate(order):
        assert reader.request(at, 10).result(20) == blob.data[at : at + 10]
        if number % 5 == 0:
            os.fsync(record)
    os.close(record)
    while not reader.complete:
        continue
    store.close()


@pytest.fixture(scope="module")
def written(scratch: Path) -> Written:
    need("root")
    place = scratch / "power"
    place.mkdir()
    blob = Blob(random.Random(2).randbytes(SIZE))
    layer = layer_of(blob.data)
    target = place / "mnt"
    target.mkdir()
    with recording(place, MIB) as (disk, journal):
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(disk)], check=True)
        # data=writeback: names and sizes may be there before the bytes, as nobody promised more
        with mounted(disk, target, "loop,data=writeback"):
            subprocess.run(["sync", "-f", str(target)], check=True)
            begun = len(Journal(journal, MIB))
            fill(target, layer, blob)
            complete = len(Journal(journal, MIB))
    return Written(layer, blob, Journal(journal, MIB), begun, complete)


@pytest.fixture
def after(written: Written, scratch: Path, tmp_path: Path) -> Iterator[Path]:
    """Where the disk is mounted after a cut."""
    yield tmp_path
    unmount(str(tmp_path))


def moments(written: Written) -> list[int]:
    """Spread over the whole time."""
    return sorted(random.Random(4).sample(range(written.begun, written.complete), CUTS))


def lies(path: Path, written: Written) -> int:
    """Chunks that the record speaks of and whose bytes on disk are others."""
    try:
        record = (path / written.layer.diff_hex / "record").read_bytes()[40:]
        data = (path / written.layer.diff_hex / "data").read_bytes()
    except FileNotFoundError:
        return 0
    found = 0
    for number, at in enumerate(range(0, SIZE, CHUNK)):
        entry = record[8 * number : 8 * number + 8]
        found += any(entry) and data[at : at + CHUNK] != written.blob.data[at : at + CHUNK]
    return found


def check(reader: LayerReader, blob: Blob) -> None:
    """Nothing is believed unseen; with the registry away a read is right, or fails."""
    assert reader.present() == 0
    assert reader.read_cached(0, SIZE) is None
    blob.away = True
    for at in range(0, SIZE, CHUNK):
        try:
            assert reader.request(at, CHUNK).result(20) == blob.data[at : at + CHUNK]
        except ClipError:
            continue
    blob.away = False
    for at in range(0, SIZE, CHUNK):
        assert reader.request(at, CHUNK).result(20) == blob.data[at : at + CHUNK]


def test_after_a_power_cut_every_byte_is_right(written: Written, after: Path) -> None:
    disk, told_wrong, found = after.with_suffix(".img"), 0, 0
    for moment in moments(written):
        written.journal.cut(moment, random.Random(moment), disk)
        with mounted(disk, after):
            told_wrong += lies(after, written)
            store = open_store(after, NEXT_BOOT)
            try:
                reader = store.open_layer(written.layer, lambda _: b"", written.blob)
                check(reader, written.blob)
                found += reader.stats.checked
            finally:
                store.close()
        disk.unlink()
    # else the cuts were harmless, and nothing was tried
    assert told_wrong > 0
    assert found > 0


def test_what_was_complete_is_there_after_a_power_cut(written: Written, after: Path) -> None:
    disk = after.with_suffix(".img")
    written.journal.cut(written.complete, random.Random(1), disk)
    before = written.blob.fetched
    with mounted(disk, after):
        store = open_store(after, NEXT_BOOT)
        try:
            reader = store.open_layer(written.layer, lambda _: b"", written.blob)
            assert reader.request(0, SIZE).result(20) == written.blob.data
        finally:
            store.close()
    assert written.blob.fetched == before
    disk.unlink()
