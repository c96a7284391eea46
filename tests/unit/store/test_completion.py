"""What layers lack, fetched in the background, on a real store and a registry in memory."""

from __future__ import annotations

import threading
import time

import pytest

from clip_runc.errors import RegistryUnreachable
from clip_runc.store import completion
from clip_runc.store.completion import Completion, portions

CHUNK = 4096
ALWAYS = 1e9


@pytest.fixture
def layer(bench):
    """A layer of 40 chunks."""
    data = bench.make_data(40 * CHUNK)
    layer, blob = bench.make_layer(data, CHUNK)
    fetcher = bench.MemoryFetcher(blob)
    return bench.open(layer, fetcher), fetcher, data


def completed(reader, rate=0, quiet=lambda: ALWAYS):
    ended = threading.Event()
    found = Completion([reader, reader], rate, quiet, lambda _: ended.set())
    found.start()
    return found, ended


def test_all_that_is_lacking_comes_and_nothing_twice(layer, until):
    reader, fetcher, data = layer
    reader.request(3 * CHUNK, 10).result(10)
    until(lambda: reader.present() == 1)
    running, ended = completed(reader)
    assert ended.wait(10)
    assert running.left() == 0
    until(lambda: reader.complete)
    assert sum(end - start for start, end in fetcher.ranges) <= sum(
        reader.compressed(chunk) for chunk in range(40)
    )
    assert running.bytes == sum(reader.compressed(chunk) for chunk in range(40) if chunk != 3)
    assert reader.read_cached(0, len(data)) == data


def test_it_waits_while_reads_wait_and_goes_on_after(layer, monkeypatch, until):
    reader, _, _ = layer
    monkeypatch.setattr(completion, "PORTION", 1)
    monkeypatch.setattr(completion, "QUIET", 0.05)
    busy = threading.Event()
    running, ended = completed(reader, quiet=lambda: 0.0 if busy.is_set() else ALWAYS)
    until(lambda: reader.present() > 2)
    busy.set()
    time.sleep(0.15)
    before = reader.present()
    time.sleep(0.3)
    assert reader.present() == before < 40
    busy.clear()
    assert ended.wait(10)
    assert running.left() == 0


def test_a_store_knows_when_a_read_had_to_wait(bench, until):
    data = bench.make_data(2 * CHUNK)
    layer, blob = bench.make_layer(data, CHUNK)
    fetcher = bench.MemoryFetcher(blob)
    fetcher.gate.clear()
    store = bench.store()
    reader = store.open_layer(layer, lambda _: b"", fetcher)
    assert store.quiet() > ALWAYS
    waiting = reader.request(0, 10)
    time.sleep(0.05)
    assert store.quiet() == 0
    fetcher.gate.set()
    waiting.result(10)
    until(lambda: 0 < store.quiet() < 10)
    last = store.quiet()
    until(lambda: reader.read_cached(0, 10) is not None)  # written after the reader has its bytes
    assert store.quiet() > last


def test_a_rate_is_kept(layer, monkeypatch):
    reader, _, _ = layer
    monkeypatch.setattr(completion, "PORTION", 1)
    size = sum(reader.compressed(chunk) for chunk in range(40))
    began = time.monotonic()
    _, ended = completed(reader, rate=2 * size)
    assert ended.wait(10)
    assert 0.4 < time.monotonic() - began < 3


def test_when_it_is_stopped_what_was_not_begun_is_left_out(layer, monkeypatch, until):
    reader, fetcher, _ = layer
    monkeypatch.setattr(completion, "PORTION", 1)
    fetcher.gate.clear()
    running, ended = completed(reader)
    until(lambda: fetcher.running)
    running.stop()
    assert ended.wait(10)
    fetcher.gate.set()
    until(lambda: running.left() == 39)
    time.sleep(0.1)
    assert running.left() == 39


def test_what_cannot_be_had_ends_it(layer):
    reader, fetcher, _ = layer
    fetcher.faults = [RegistryUnreachable("away")] * 1000
    running, ended = completed(reader)
    assert ended.wait(20)
    assert running.left() == 40


def test_portions_hold_what_fits_and_at_least_one():
    assert list(portions([], lambda _: 1, 10)) == []
    found = list(portions([1, 2, 5, 6], lambda chunk: 5 if chunk < 5 else 11, 10))
    assert found == [([1, 2], 10), ([5], 11), ([6], 11)]
    assert list(portions([0, 1, 2], lambda _: 0, 10)) == [([0, 1, 2], 0)]
