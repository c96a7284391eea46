"""Layers made of real gzip, zstd or plain bytes, and a registry in memory that can misbehave."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from clip_runc.errors import ClipError, RegistryUnreachable
from clip_runc.index.model import Chunk, Layer
from clip_runc.store import ChunkStore, LayerReader

BOOT = "11111111-2222-3333-4444-555555555555"
OTHER_BOOT = "99999999-2222-3333-4444-555555555555"


def make_data(size: int, seed: int = 1) -> bytes:
    """Bytes that deflate shrinks to about half, different everywhere."""
    return random.Random(seed).randbytes(size // 2 + 1).hex().encode()[:size]


def make_layer(data: bytes, chunk_size: int = 64 << 10, codec: str = "gzip") -> tuple[Layer, bytes]:
    """A layer whose uncompressed bytes are ``data``, and its blob."""
    pieces = [data[at : at + chunk_size] for at in range(0, len(data), chunk_size)]
    blob, chunks, raw = b"", [], 0
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    if codec == "gzip":
        blob = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    for piece in pieces:
        if codec == "gzip":
            last = raw + len(piece) == len(data)
            comp = deflate.compress(piece) + deflate.flush(
                zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH
            )
        elif codec == "zstd":
            comp = zstandard.ZstdCompressor(level=1).compress(piece)
        else:
            comp = piece
        start = 0 if codec == "stream" else len(blob)
        digest = hashlib.sha256(piece).digest()
        blob += comp
        end = 0 if codec == "stream" else len(blob)
        chunks.append(Chunk(raw, raw + len(piece), start, end, digest))
        raw += len(piece)
    if codec == "gzip":
        blob += zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    if codec == "stream":
        blob = zstandard.ZstdCompressor(level=1).compress(data)
    layer = Layer(
        digest="sha256:" + hashlib.sha256(blob).hexdigest(),
        diff_id="sha256:" + hashlib.sha256(data).hexdigest(),
        media_type="application/vnd.oci.image.layer.v1.tar+gzip",
        codec=codec,
        compression={"none": "none", "gzip": "gzip"}.get(codec, "zstd"),
        comp_size=len(blob),
        raw_size=len(data),
        chunks=tuple(chunks),
    )
    return layer, blob


class MemoryFetcher:
    """Blobs in memory.  ``gate`` must be set for a request to be answered; ``faults`` are used
    up one a request: an error is raised, a function changes the bytes."""

    def __init__(self, *blobs: bytes, delay: float = 0.0) -> None:
        self.blobs = {"sha256:" + hashlib.sha256(b).hexdigest(): b for b in blobs}
        self.delay = delay
        self.gate = threading.Event()
        self.gate.set()
        self.faults: list[ClipError | Callable[[bytes], bytes]] = []
        self.ranges: list[tuple[int, int]] = []
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        with self._lock:
            self.ranges.append((start, end))
            self.running += 1
            self.most_running = max(self.running, self.most_running)
            fault = self.faults.pop(0) if self.faults else None
        try:
            return self._answer(self.blobs[digest][start:end], fault, deadline)
        finally:
            with self._lock:
                self.running -= 1

    def _answer(
        self,
        data: bytes,
        fault: ClipError | Callable[[bytes], bytes] | None,
        deadline: float | None,
    ) -> bytes:
        left = None if deadline is None else deadline - time.monotonic()
        if not self.gate.wait(left):
            raise RegistryUnreachable("no answer before the deadline")
        time.sleep(self.delay)
        if isinstance(fault, ClipError):
            raise fault
        return data if fault is None else fault(data)

    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        with self._lock:
            self.ranges.append((start, size))
            fault = self.faults.pop(0) if self.faults else None
        for at in range(start, size, 10_000):
            self.gate.wait()
            if isinstance(fault, ClipError) and at > size // 2:
                raise fault
            data = self.blobs[digest][at : at + 10_000]
            yield fault(data) if callable(fault) else data


class Bench:
    """A store in a directory of its own, with all that a test needs at hand."""

    BOOT = BOOT
    OTHER_BOOT = OTHER_BOOT
    make_data = staticmethod(make_data)
    make_layer = staticmethod(make_layer)
    MemoryFetcher = MemoryFetcher

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stores: list[ChunkStore] = []

    def store(self, boot_id: str = BOOT, **options: float) -> ChunkStore:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            store = ChunkStore(fd, boot_id=boot_id, **options)  # type: ignore[arg-type]  # threads is an int
        finally:
            os.close(fd)
        self._stores.append(store)
        return store

    def open(
        self, layer: Layer, fetcher: MemoryFetcher, boot_id: str = BOOT, **options: float
    ) -> LayerReader:
        return self.store(boot_id, **options).open_layer(layer, lambda _: b"", fetcher)

    def close(self) -> None:
        """What a restart of the server does."""
        while self._stores:
            self._stores.pop().close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def no_warnings_logged(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """A warning in the log is a failure, but where a test says that it provokes one."""
    yield
    if "provokes" not in request.fixturenames:
        logged = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= 30]
        assert not logged


@pytest.fixture
def provokes(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of a test that provokes warnings."""
    return caplog


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return when ``condition`` holds; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until
