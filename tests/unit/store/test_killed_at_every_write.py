"""The store killed at every write, truncation, sync, directory and link that it makes, one by one.

A child does one thing with a store and dies at the n-th call of those, for n from 1 until it lives;
at a write also with half of the bytes written.  Whatever that leaves, no byte is wrong, and
everything can be read.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from clip_runc.store.adopt import Adoption
from tests.integration.prerequisites import native

CHUNK = 16 << 10
SIZE = 6 * CHUNK - 700
CALLS = ("pwrite", "ftruncate", "fsync", "fdatasync", "mkdir", "link", "utime")
Scenario = Callable[[Any, Any, bytes], None]


def killed_at(number: int, *, torn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die at call ``number``: before it is made, or in the middle of a write."""
    count = 0

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                if torn and name == "pwrite":
                    real(args[0], memoryview(args[1])[: len(args[1]) // 2], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrapped(name, getattr(os, name)))


def outcome(child: Callable[[], None]) -> int:
    """Run ``child`` in a process of its own: 0, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fill(bench: Any, layer: Any, blob: bytes) -> None:
    """Read everything, until the layer is complete."""
    reader = bench.open(layer, bench.MemoryFetcher(blob), threads=1)
    for at in range(0, SIZE, CHUNK):
        reader.request(at, CHUNK).result(10)
    while not reader.complete:
        continue


def fill_what_others_cut(bench: Any, layer: Any, blob: bytes) -> None:
    """The same where the layer is there already, with other chunks: all is doubted."""
    fill(bench, layer, blob)


def damage(bench: Any, layer: Any, blob: bytes) -> None:
    """A layer that somebody else writes to while it is read."""
    fill(bench, layer, blob)
    path = bench.path / layer.diff_hex / "data"
    descriptor = os.open(path, os.O_WRONLY)
    os.truncate(descriptor, CHUNK)
    os.close(descriptor)
    reader = bench.open(layer, bench.MemoryFetcher(blob), threads=1)
    for at in range(0, SIZE, CHUNK):
        reader.request(at, CHUNK).result(10)


def adopt(bench: Any, layer: Any, blob: bytes) -> None:
    """Bytes that indexing had anyway."""
    data = bench.make_data(SIZE)
    descriptor = os.open(bench.path, os.O_RDONLY | os.O_DIRECTORY)
    adoption = Adoption(descriptor, bench.BOOT)
    for at in range(0, SIZE, 3 * CHUNK):
        adoption.write(layer.diff_id, at, data[at : at + 3 * CHUNK])
    adoption.done(layer)
    adoption.close()
    os.close(descriptor)


SCENARIOS: dict[str, Scenario] = {
    "fill": fill, "other chunks": fill_what_others_cut, "damage": damage, "adopt": adopt,
}  # fmt: skip


@native("a fork beside threads that does not hang now and then")
@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_byte_is_wrong_wherever_it_dies(
    bench: Any, tmp_path: Any, provokes: Any, name: str, torn: bool
) -> None:
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data, chunk_size=CHUNK)
    other, _ = bench.make_layer(data, chunk_size=CHUNK // 2)
    number, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        number += 1
        bench.path = tmp_path / str(number)
        bench.path.mkdir()
        if name == "other chunks":
            outcome(lambda: fill(bench, other, blob_of(bench, data)))

        def child(number: int = number) -> None:
            with pytest.MonkeyPatch.context() as patch:
                killed_at(number, torn=torn, monkeypatch=patch)
                SCENARIOS[name](bench, layer, blob)

        status = outcome(child)
        check(bench, layer, blob, data)
    assert status == 0
    # the chunks and what is recorded of each; an adopted layer is written in two pieces
    assert number > (12 if name != "adopt" else 8)


def blob_of(bench: Any, data: bytes) -> bytes:
    blob: bytes = bench.make_layer(data, chunk_size=CHUNK // 2)[1]
    return blob


def check(bench: Any, layer: Any, blob: bytes, data: bytes) -> None:
    """In the same boot what is believed is right; in another nothing is, before it was hashed."""
    for boot in (bench.BOOT, bench.OTHER_BOOT):
        reader = bench.open(layer, bench.MemoryFetcher(blob), boot, threads=1)
        assert boot == bench.BOOT or not reader.present()
        for at in range(0, SIZE, CHUNK // 2):
            wanted = data[at : at + CHUNK // 2]
            assert reader.read_cached(at, CHUNK // 2) in (None, wanted)
            assert reader.request(at, CHUNK // 2).result(10) == wanted
        bench.close()
