"""CPU seconds of fetching, inflating, checking and storing what a list names; see bench/replay."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from isal import isal_zlib

from clip_runc.index.clipfile import ClipFile
from clip_runc.index.gzip_blocks import restart_bytes
from clip_runc.index.inflate import inflate_chunk
from clip_runc.index.model import Layer
from clip_runc.store import ChunkStore
from clip_runc.store.replay import Part, Replay

BOOT = "11111111-2222-3333-4444-555555555555"
PIECES = (64 << 10, 1 << 30)


class Blobs:
    """A fetcher that reads the layers of a layout."""

    def __init__(self, layout: Path) -> None:
        self._directory = layout / "blobs/sha256"

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        """Bytes of a layer."""
        with (self._directory / digest.removeprefix("sha256:")).open("rb") as file:
            return os.pread(file.fileno(), end - start, start)

    def stream(self, digest: str, size: int, start: int = 0) -> object:
        """No layer of a list is streamed."""
        raise RuntimeError(f"{digest} is streamed: record a list of a gzip or zstd layer")


class Listed:
    """The chunks of the largest layer that the first list of an index names."""

    def __init__(self, index: ClipFile, most: int) -> None:
        self.number, self.layer = max(enumerate(index.layers), key=lambda one: one[1].comp_size)
        self.window = partial(index.window, self.number)
        ranges = index.prefetch()[0].ranges
        self.chunks = [
            chunk
            for one in ranges
            if one.layer == self.number
            for chunk in range(one.first, one.last + 1)
        ][:most]


def cpu(work: Callable[[], object]) -> tuple[float, float, int]:
    """Seconds in user space, in the kernel, and page faults of ``work``."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (
        after.ru_utime - before.ru_utime,
        after.ru_stime - before.ru_stime,
        after.ru_minflt - before.ru_minflt,
    )


def replayed(listed: Listed, blobs: Blobs) -> None:
    """The store's whole way, as clipd's server goes it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="clip-bench-") as directory:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        store = ChunkStore(fd, boot_id=BOOT)
        reader = store.open_layer(listed.layer, listed.window, blobs)
        done = threading.Event()
        Replay([Part(reader, one, one) for one in listed.chunks], done=done.set).start()
        done.wait()
        store.close()
        os.close(fd)


def inflated(layer: Layer, chunks: list[tuple[int, bytes, bytes]], most: int) -> None:
    """Inflating alone, with ``most`` compressed bytes a call."""
    for number, data, window in chunks:
        chunk = layer.chunks[number]
        inflater = isal_zlib.decompressobj(-15, zdict=window)
        left, view, pieces = chunk.raw_end - chunk.raw_start, memoryview(data), []
        if chunk.bit:
            pieces.append(inflater.decompress(restart_bytes(chunk.bit, data[0]), left))
            view = view[1:]
        for at in range(0, len(view), most):
            pieces.append(inflater.decompress(view[at : at + most], left))
            left -= len(pieces[-1])
            if not left:
                break
        b"".join(pieces)


def checked(layer: Layer, chunks: list[tuple[int, bytes, bytes]]) -> None:
    """What a worker does with the bytes of each chunk."""
    for number, data, window in chunks:
        inflate_chunk(layer, layer.chunks[number], data, window)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("layout", type=Path)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with ClipFile.open(str(options.index)) as index:
        listed, blobs = Listed(index, options.chunks), Blobs(options.layout)
        layer = listed.layer
        chunks = []
        for number in listed.chunks:
            one = layer.chunks[number]
            data = blobs.read_range(layer.digest, one.comp_start, one.comp_end)
            chunks.append((number, data, listed.window(number)))
        raw = sum(layer.chunks[n].raw_end - layer.chunks[n].raw_start for n in listed.chunks)
        compressed = sum(len(data) for _, data, _ in chunks)
        print(f"{len(chunks)} chunks, {compressed / 1e6:.0f} MB, {raw / 1e6:.0f} MB inflated")
        works: dict[str, Callable[[], object]] = {
            f"inflate, {'whole' if most > 1 << 20 else f'{most >> 10} KiB'} a call": partial(
                inflated, layer, chunks, most
            )
            for most in PIECES
        }
        works["inflate and check"] = partial(checked, layer, chunks)
        works["fetch, inflate, check, store"] = lambda: replayed(listed, blobs)
        samples: dict[str, list[tuple[float, float, int]]] = {name: [] for name in works}
        begin = time.monotonic()
        for _ in range(options.rounds):
            for name, work in works.items():
                samples[name].append(cpu(work))
        for name, found in samples.items():
            user, system, faults = (
                statistics.median(column) for column in zip(*found, strict=True)
            )
            print(f"{name:<30} user {user:.2f} s  system {system:.2f} s  {faults:.0f} page faults")
        print(f"{options.rounds} rounds in turn, medians, {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
