"""The chunk store on real file systems that are full or read-only."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.index.model import Chunk, Layer
from clip_runc.linux.mount import unmount
from clip_runc.store import ChunkStore, LayerReader
from tests.integration.prerequisites import need

SIZE = 24 << 20
CHUNK = 1 << 20


class Blob:
    """A registry with one uncompressed blob."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.requests = 0

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        self.requests += 1
        return self.data[start:end]

    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        yield self.data[start:]


@pytest.fixture(scope="module")
def blob() -> Blob:
    return Blob(random.Random(1).randbytes(SIZE))


@pytest.fixture(scope="module")
def layer(blob: Blob) -> Layer:
    digest = "sha256:" + hashlib.sha256(blob.data).hexdigest()
    chunks = tuple(
        Chunk(at, at + CHUNK, at, at + CHUNK, hashlib.sha256(blob.data[at : at + CHUNK]).digest())
        for at in range(0, SIZE, CHUNK)
    )
    return Layer(digest, digest, "", "none", "none", SIZE, SIZE, chunks)


@pytest.fixture
def small_disk(scratch: Path) -> Iterator[Path]:
    """An ext4 of 8 MB."""
    need("root")
    image, target = scratch / "small.img", scratch / "small"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", str(image)], check=True)
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(target)], check=True)
    try:
        yield target
    finally:
        unmount(str(target))
        image.unlink()


def open_store(path: Path) -> ChunkStore:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return ChunkStore(fd, boot_id="a boot")
    finally:
        os.close(fd)


def read_all(reader: LayerReader, data: bytes) -> None:
    for at in range(0, SIZE, 128 << 10):
        assert reader.request(at, 128 << 10).result(20) == data[at : at + (128 << 10)]


def test_a_full_store_serves_and_goes_on_when_there_is_room(
    small_disk: Path, layer: Layer, blob: Blob, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(small_disk)
    try:
        reader = store.open_layer(layer, lambda _: b"", blob)
        before = blob.requests
        read_all(reader, blob.data)
        read_all(reader, blob.data)
        assert 0 < reader.present() < 8 and not reader.complete
        # each chunk once a round, whatever could be stored, and not once a read; and what was
        # on its way ahead of the reader when the disk became full
        assert blob.requests - before <= 3 * len(layer.chunks)
        assert caplog.text.count("No space left") == 1
    finally:
        store.close()
    again = open_store(small_disk)
    try:
        reader = again.open_layer(layer, lambda _: b"", blob)
        assert reader.present() or reader.prefetch().left()
        read_all(reader, blob.data)
    finally:
        again.close()


def test_a_read_only_store_serves_what_it_has_and_the_rest_from_memory(
    small_disk: Path, layer: Layer, blob: Blob
) -> None:
    store = open_store(small_disk)
    reader = store.open_layer(layer, lambda _: b"", blob)
    reader.request(0, 10).result(10)
    done = threading.Event()
    while not reader.present():
        done.wait(0.01)
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    store = open_store(small_disk)
    try:
        reader = store.open_layer(layer, lambda _: b"", blob)
        assert reader.read_cached(0, CHUNK) == blob.data[:CHUNK]
        read_all(reader, blob.data)
    finally:
        store.close()
