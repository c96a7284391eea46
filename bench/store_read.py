"""Throughput and latency of ``clip_runc.store`` by itself: no FUSE, no EROFS.

A reader asks as the kernel's read-ahead on a FUSE file does: 128 KiB at a time, a few at once.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import multiprocessing
import os
import random
import resource
import subprocess
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from clip_runc.index.model import Chunk, Layer
from clip_runc.registry.client import Registry
from clip_runc.registry.reference import Reference
from clip_runc.store import ChunkStore, Fetcher, LayerReader
from tests.integration.daemons import DockerRegistry

PIECE = 128 << 10
DEPTH = 8
CHECKPOINT = 2 << 20


class Memory:
    """A registry that costs nothing: what is left is the store's own."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._blob = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        return self._blob[start:end]

    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        yield self._blob[start:]


def tar_bytes(mib: int) -> bytes:
    """The beginning of a tar of /usr/lib."""
    with subprocess.Popen(
        ["tar", "-C", "/usr", "--sort=name", "-cf", "-", "lib"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as tar:  # fmt: skip
        assert tar.stdout is not None
        data = tar.stdout.read(mib << 20)
        tar.kill()
    return data


def make_layer(data: bytes) -> tuple[Layer, bytes]:
    """One gzip stream with a restart point about every ``CHECKPOINT`` compressed bytes.

    The points are full flushes, so they need no window; inflating costs the same.
    """
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    blob = bytearray(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    chunks: list[Chunk] = []
    raw, comp = 0, len(blob)
    for end in range(1 << 18, len(data) + (1 << 18), 1 << 18):
        end = min(end, len(data))
        blob += deflate.compress(data[max(raw, end - (1 << 18)) : end])
        last = end == len(data)
        if last or len(blob) - comp >= CHECKPOINT:
            blob += deflate.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)
            digest = hashlib.sha256(memoryview(data)[raw:end]).digest()
            chunks.append(Chunk(raw, end, comp, len(blob), digest))
            raw, comp = end, len(blob)
    blob += zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    layer = Layer(
        digest="sha256:" + hashlib.sha256(blob).hexdigest(),
        diff_id="sha256:" + hashlib.sha256(data).hexdigest(),
        media_type="application/vnd.oci.image.layer.v1.tar+gzip",
        codec="gzip",
        compression="gzip",
        comp_size=len(blob),
        raw_size=len(data),
        chunks=tuple(chunks),
    )
    return layer, bytes(blob)


def make_blob(path: Path, mib: int) -> Layer:
    """Write the blob of a layer to ``path``."""
    layer, blob = make_layer(tar_bytes(mib))
    path.write_bytes(blob)
    return layer


def peak_memory() -> float:
    """Resident megabytes of this process at most, until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_sequence(reader: LayerReader, start: int, end: int) -> None:
    """Read ``[start, end)`` with ``DEPTH`` requests under way."""
    waiting: deque[Future[bytes]] = deque()
    for offset in range(start, end, PIECE):
        if reader.read_cached(offset, PIECE) is None:
            waiting.append(reader.request(offset, PIECE))
        if len(waiting) >= DEPTH:
            waiting.popleft().result()
    while waiting:
        waiting.popleft().result()


def at_random(reader: LayerReader, count: int) -> list[float]:
    """Seconds of ``count`` reads of 4 KiB, one after the other, each in another chunk."""
    rng = random.Random(1)
    starts = rng.sample(range(0, reader.size - 4096, reader.size // (2 * count)), count)
    times = []
    for offset in starts:
        begin = time.perf_counter()
        reader.request(offset, 4096).result()
        times.append(time.perf_counter() - begin)
    return times


class Run:
    """A fresh store in a temporary directory."""

    def __init__(self, layer: Layer, fetcher: Fetcher, threads: int) -> None:
        self._stack = ExitStack()
        path = self._stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.store = ChunkStore(fd, threads=threads, boot_id="bench")
        os.close(fd)
        self.reader = self.store.open_layer(layer, lambda _: b"", fetcher)

    def __enter__(self) -> LayerReader:
        return self.reader

    def __exit__(self, *exception: object) -> None:
        self.store.close()
        self._stack.close()


def measure(layer: Layer, fetcher: Fetcher, threads: int) -> None:
    """One round of everything, one line each."""
    mb = layer.raw_size / 1e6
    with Run(layer, fetcher, threads) as reader:
        cpu, begin = time.process_time(), time.perf_counter()
        in_sequence(reader, 0, reader.size)
        took = time.perf_counter() - begin
        stats = reader.stats
        print(
            f"cold, in sequence: {mb / took:6.0f} MB/s, {stats.requests} requests, "
            f"{mb / (time.process_time() - cpu):.0f} MB a second of CPU"
        )
        while reader.present() < reader.chunk_count:
            time.sleep(0.01)
        begin = time.perf_counter()
        in_sequence(reader, 0, reader.size)
        took = time.perf_counter() - begin
        print(f"warm, in sequence: {mb / took:6.0f} MB/s, {took / mb * PIECE:.1f} µs a read")
        begin = time.perf_counter()
        for _ in range(20_000):
            reader.read_cached(0, 16)
        print(f"read_cached of 16 bytes: {(time.perf_counter() - begin) / 20_000 * 1e6:.2f} µs")
    with Run(layer, fetcher, threads) as reader:
        times = sorted(at_random(reader, min(60, reader.chunk_count // 2)))
        print(
            f"cold, at random: median {times[len(times) // 2] * 1e3:.1f} ms, "
            f"worst {times[-1] * 1e3:.1f} ms, {reader.stats.fetched_bytes / 1e6:.0f} MB fetched "
            f"for {len(times)} reads"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=400)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", choices=("memory", "registry"), default="registry")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        # in a process of its own, or its memory would hide what the store needs
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as maker:
            layer = maker.submit(make_blob, directory / "blob", options.mib).result()
        print(
            f"{layer.raw_size / 1e6:.0f} MB in {len(layer.chunks)} chunks, "
            f"{layer.comp_size / 1e6:.0f} MB compressed"
        )
        base = peak_memory()
        if options.source == "memory":
            fetcher: Fetcher = Memory(directory / "blob")
        else:
            daemon = DockerRegistry(directory / "registry")
            stack.callback(daemon.stop)
            registry = Registry(Reference.parse(f"{daemon.host}/bench/layer:1"), plain_http=True)
            stack.callback(registry.close)
            registry.push_blob(str(directory / "blob"))
            fetcher = registry
        for _ in range(options.rounds):
            measure(layer, fetcher, options.threads)
        print(f"peak memory {peak_memory():.0f} MB, {base:.0f} MB before the first read")


if __name__ == "__main__":
    main()
