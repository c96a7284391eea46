"""When pages of data files are given back, and that they are."""

from __future__ import annotations

import subprocess
import threading
from typing import Any

from clip_runc.store.residence import LONGEST, QUIET, Residence
from tests.integration.prerequisites import need

CHUNK = 64 << 10


class Reader:
    """A layer that counts."""

    def __init__(self) -> None:
        self.count = 0
        self.dropped = 0

    def activity(self) -> int:
        return self.count

    def drop_pages(self) -> None:
        self.dropped += 1


def test_a_quiet_layer_is_dropped_twice_and_then_left_alone() -> None:
    reader: Any = Reader()
    residence = Residence(lambda: [reader], threading.Event(), list)
    assert residence.look(0.0)
    assert residence.look(QUIET - 0.1)
    assert reader.dropped == 0
    assert residence.look(QUIET)
    assert reader.dropped == 1
    assert not residence.look(2 * QUIET)
    assert reader.dropped == 2
    assert not residence.look(100.0)
    assert reader.dropped == 2


def test_a_layer_that_is_read_is_dropped_now_and_then() -> None:
    reader: Any = Reader()
    residence = Residence(lambda: [reader], threading.Event(), list)
    for second in range(31):
        reader.count += 1
        assert residence.look(float(second))
    assert reader.dropped == 30 // LONGEST


def test_a_layer_that_is_closed_is_forgotten() -> None:
    readers: list[Any] = [Reader()]
    residence = Residence(lambda: readers, threading.Event(), list)
    assert residence.look(0.0)
    readers.clear()
    assert not residence.look(1.0)


def resident(path: Any) -> int:
    command = ["fincore", "--bytes", "--noheadings", "--raw", "--output", "RES", str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_the_kernel_keeps_nothing_of_what_was_read(bench: Any, until: Any) -> None:
    need("fincore")
    data = bench.make_data(16 * CHUNK)
    layer, blob = bench.make_layer(data, chunk_size=CHUNK)
    dropped: list[Any] = []
    store = bench.store()
    store.drop_pages(dropped.append)
    reader = store.open_layer(layer, lambda _: b"", bench.MemoryFetcher(blob))
    assert reader.request(0, len(data)).result(20) == data
    until(lambda: reader.complete)
    path = bench.path / layer.diff_hex / "data"
    assert resident(path) > 0
    until(lambda: resident(path) == 0, 5 * QUIET)
    assert dropped[0] == [reader]
    assert reader.read_cached(0, len(data)) == data
    until(lambda: resident(path) == 0, 5 * QUIET)
