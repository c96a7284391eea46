"""Reads of a layer: right bytes, one fetch a chunk, failures that pass, and the clock."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from clip_runc.errors import (
    DigestMismatch,
    IndexFormatError,
    LayerFormatError,
    NotFound,
    RegistryUnreachable,
    StoreError,
)

SIZE = 1_000_000


@pytest.mark.parametrize("codec", ["gzip", "zstd", "none", "stream"])
def test_reads_are_right_and_then_cached(bench, codec, until):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data, codec=codec)
    reader = bench.open(layer, bench.MemoryFetcher(blob))
    random.seed(3)
    for _ in range(60):
        offset, length = random.randrange(SIZE), random.randrange(1, 200_000)
        assert reader.request(offset, length).result(10) == data[offset : offset + length]
        # a waiter is served before its chunk is written
        until(lambda at=(offset, length): reader.read_cached(*at) is not None)
        assert reader.read_cached(offset, length) == data[offset : offset + length]
    assert reader.read_cached(SIZE, 10) == b"" == reader.request(SIZE + 5, 1).result(0)
    assert reader.read_cached(0, 0) == b""


def test_a_miss_is_none_and_costs_nothing(bench):
    layer, blob = bench.make_layer(bench.make_data(SIZE))
    fetcher = bench.MemoryFetcher(blob)
    assert bench.open(layer, fetcher).read_cached(0, 1) is None
    assert fetcher.ranges == []


def test_64_readers_of_one_chunk_are_one_fetch(bench):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    fetcher = bench.MemoryFetcher(blob)
    fetcher.gate.clear()
    reader = bench.open(layer, fetcher)
    with ThreadPoolExecutor(64) as pool:
        futures = list(pool.map(lambda n: reader.request(n * 100, 100), range(64)))
    fetcher.gate.set()
    for n, future in enumerate(futures):
        assert future.result(10) == data[n * 100 : n * 100 + 100]
    assert len(fetcher.ranges) == 1
    assert reader.stats.waits == 64


def test_a_read_is_served_when_its_own_chunk_is_there(bench, until):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    slow = threading.Event()

    class Slow(bench.MemoryFetcher):
        def read_range(self, digest, start, end, *, deadline=None):
            if start == layer.chunks[0].comp_start:
                slow.wait(10)
            return super().read_range(digest, start, end, deadline=deadline)

    reader = bench.open(layer, Slow(blob))
    first, other = reader.request(0, 10), reader.request(500_000, 10)
    assert other.result(30) == data[500_000:500_010]
    assert not first.done()
    slow.set()
    assert first.result(30) == data[:10]


def test_every_waiter_hears_of_a_failure_and_the_next_read_tries_again(bench):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    fetcher = bench.MemoryFetcher(blob)
    fetcher.gate.clear()
    fetcher.faults = [NotFound("gone")]
    reader = bench.open(layer, fetcher)
    futures = [reader.request(n, 10) for n in range(8)]
    fetcher.gate.set()
    for future in futures:
        with pytest.raises(NotFound, match="gone"):
            future.result(30)
    assert reader.request(0, 10).result(30) == data[:10]


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes((data[middle] ^ 8,)) + data[middle + 1 :]


@pytest.mark.parametrize("codec", ["gzip", "zstd", "none"])
def test_a_flipped_bit_is_fetched_again_and_never_stored(bench, codec, provokes):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data, codec=codec)
    fetcher = bench.MemoryFetcher(blob)
    fetcher.faults = [flip, flip]
    reader = bench.open(layer, fetcher)
    assert reader.request(0, 1000).result(30) == data[:1000]
    assert reader.stats.verify_failures == 2
    assert layer.digest in provokes.text and "chunk 0" in provokes.text


def test_a_bit_that_is_always_wrong_is_an_error(bench, provokes):
    layer, blob = bench.make_layer(bench.make_data(SIZE), codec="none")
    fetcher = bench.MemoryFetcher(blob)
    fetcher.faults = [flip] * 3
    reader = bench.open(layer, fetcher)
    with pytest.raises(DigestMismatch):
        reader.request(0, 10).result(30)
    assert len(fetcher.ranges) == 3
    assert reader.read_cached(0, 10) is None and reader.present() == 0


def test_short_bytes_from_a_fetcher_are_an_error_and_not_a_hang(bench, provokes):
    layer, blob = bench.make_layer(bench.make_data(SIZE))
    fetcher = bench.MemoryFetcher(blob)
    fetcher.faults = [lambda data: data[:-5]]
    reader = bench.open(layer, fetcher)
    assert reader.request(0, 10).result(30) == bench.make_data(SIZE)[:10]


def test_a_read_waits_no_longer_than_it_said(bench):
    layer, blob = bench.make_layer(bench.make_data(SIZE))
    fetcher = bench.MemoryFetcher(blob)
    fetcher.gate.clear()
    reader = bench.open(layer, fetcher, read_timeout=0.3)
    start = time.monotonic()
    with pytest.raises(RegistryUnreachable):
        reader.request(0, 10).result(30)
    assert time.monotonic() - start < 15
    fetcher.gate.set()
    assert reader.request(0, 10).result(30) == bench.make_data(SIZE)[:10]


def test_the_deadline_holds_for_a_fetcher_that_ignores_it(bench, until):
    layer, blob = bench.make_layer(bench.make_data(SIZE))
    release = threading.Event()

    class Deaf(bench.MemoryFetcher):
        def read_range(self, digest, start, end, *, deadline=None):
            release.wait(20)
            return super().read_range(digest, start, end)

    reader = bench.open(layer, Deaf(blob), read_timeout=0.3)
    with pytest.raises(RegistryUnreachable, match=r"within 0\.3 seconds"):
        reader.request(0, 10).result(30)
    release.set()
    until(lambda: reader.read_cached(0, 10) is not None)


def test_one_layer_that_stalls_leaves_workers_for_another(bench):
    data, other_data = bench.make_data(SIZE), bench.make_data(SIZE, seed=2)
    layer, blob = bench.make_layer(data)
    other, other_blob = bench.make_layer(other_data)
    stalled, fine = bench.MemoryFetcher(blob), bench.MemoryFetcher(other_blob)
    stalled.gate.clear()
    store = bench.store()
    hanging = store.open_layer(layer, lambda _: b"", stalled)
    futures = [hanging.request(n * 70_000, 10) for n in range(12)]
    reader = store.open_layer(other, lambda _: b"", fine)
    assert reader.request(0, SIZE).result(30) == other_data
    assert not any(future.done() for future in futures)
    stalled.gate.set()
    assert [future.result(30) for future in futures] == [
        data[n * 70_000 : n * 70_000 + 10] for n in range(12)
    ]


def test_workers_that_hang_are_replaced(bench, monkeypatch):
    monkeypatch.setattr("clip_runc.store.workers.STALLED", 0.2)
    store = bench.store(threads=2)
    fetchers, hanging = [], []
    for seed in range(2, 5):
        layer, blob = bench.make_layer(bench.make_data(100_000, seed))
        fetchers.append(bench.MemoryFetcher(blob))
        fetchers[-1].gate.clear()
        hanging.append(store.open_layer(layer, lambda _: b"", fetchers[-1]).request(0, 10))
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    reader = store.open_layer(layer, lambda _: b"", bench.MemoryFetcher(blob))
    assert reader.request(0, 300_000).result(30) == data[:300_000]
    for fetcher in fetchers:
        fetcher.gate.set()
    for future in hanging:
        future.result(30)


def test_a_second_source_serves_when_the_first_cannot(bench):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    bad, good = bench.MemoryFetcher(blob), bench.MemoryFetcher(blob)
    bad.faults = [RegistryUnreachable("down")] * 100
    store = bench.store()
    reader = store.open_layer(layer, lambda _: b"", bad)
    assert store.open_layer(layer, lambda _: b"", good) is reader
    assert reader.request(0, SIZE).result(30) == data
    assert len(bad.ranges) <= 6  # those that had begun before the first failed
    store.close_layer(reader)
    assert reader.request(0, 10).result(30) == data[:10]
    store.close_layer(reader)
    assert store.readers() == []


def test_closing_fails_who_waits(bench):
    layer, blob = bench.make_layer(bench.make_data(SIZE))
    fetcher = bench.MemoryFetcher(blob)
    fetcher.gate.clear()
    store = bench.store()
    reader = store.open_layer(layer, lambda _: b"", fetcher)
    future = reader.request(0, 300_000)
    store.close_layer(reader)
    with pytest.raises(StoreError, match="closed"):
        future.result(30)
    with pytest.raises(StoreError, match="closed"):
        reader.request(0, 1).result(30)
    assert reader.read_cached(0, 1) is None
    fetcher.gate.set()


def test_a_cancelled_future_harms_nobody(bench):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    fetcher = bench.MemoryFetcher(blob)
    fetcher.gate.clear()
    reader = bench.open(layer, fetcher)
    given_up, kept = reader.request(0, 10), reader.request(0, 20)
    assert given_up.cancel()
    fetcher.gate.set()
    assert kept.result(30) == data[:20]


def test_prefetch_and_completion(bench, until):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    reader = bench.open(layer, bench.MemoryFetcher(blob))
    done = threading.Event()
    reader.when_complete(lambda found: done.set() if found is reader else None)
    token = reader.prefetch()
    assert done.wait(10) and reader.complete
    assert token.left() == 0
    stored = (bench.path / reader.data_path).read_bytes()
    assert stored[:SIZE] == data and len(stored) % 512 == 0 and not stored[SIZE:].strip(b"\0")
    late = threading.Event()
    reader.when_complete(lambda _: late.set())
    assert late.is_set()


def test_a_cancelled_prefetch_stops_but_readers_are_served(bench, until, monkeypatch):
    monkeypatch.setattr("clip_runc.store.fetch_plan.MANY", 0)  # each chunk is as one of 2 MiB
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    fetcher = bench.MemoryFetcher(blob)
    fetcher.gate.clear()
    reader = bench.open(layer, fetcher, threads=2)
    token = reader.prefetch()
    until(lambda: fetcher.ranges)
    future = reader.request(SIZE - 10, 10)
    token.cancel()
    fetcher.gate.set()
    assert future.result(30) == data[-10:]
    until(lambda: fetcher.running == 0)
    assert token.left() > 5
    with pytest.raises(StoreError, match="no such chunk"):
        reader.prefetch([99])


def test_put_stores_what_is_right_only(bench, until):
    data = bench.make_data(SIZE)
    layer, _ = bench.make_layer(data)
    fetcher = bench.MemoryFetcher()
    reader = bench.open(layer, fetcher)
    for number, chunk in enumerate(layer.chunks):
        with pytest.raises(DigestMismatch):
            reader.put(number, b"x" * (chunk.raw_end - chunk.raw_start))
        reader.put(number, data[chunk.raw_start : chunk.raw_end])
        reader.put(number, data[chunk.raw_start : chunk.raw_end])
    with pytest.raises(StoreError):
        reader.put(len(layer.chunks), b"")
    until(lambda: reader.complete)
    assert reader.read_cached(0, SIZE) == data and fetcher.ranges == []


def test_reading_in_sequence_reads_ahead_and_at_random_does_not(bench, until):
    data = bench.make_data(4 << 20)
    layer, blob = bench.make_layer(data)
    fetcher = bench.MemoryFetcher(blob)
    reader = bench.open(layer, fetcher)
    for chunk in (60, 3, 40):
        reader.request(layer.chunks[chunk].raw_start, 10).result(30)
    until(lambda: reader.present() == 3)
    assert len(fetcher.ranges) == 3
    for offset in range(0, 24 * 65536, 32768):
        reader.request(offset, 32768).result(30)
    until(lambda: reader.present() > 40)


def test_an_empty_layer_is_complete(bench, until):
    layer, blob = bench.make_layer(b"")
    reader = bench.open(layer, bench.MemoryFetcher(blob))
    assert reader.read_cached(0, 10) == b""
    until(lambda: reader.complete)


def test_a_chunk_table_that_cannot_be_is_refused(bench):
    from dataclasses import replace

    layer, blob = bench.make_layer(bench.make_data(SIZE))
    chunks = list(layer.chunks)
    holes = replace(layer, chunks=(*chunks[:3], *chunks[4:]))
    long = replace(layer, raw_size=SIZE + 1)
    outside = replace(layer, comp_size=100)
    path = replace(layer, diff_id="sha256:../../etc")
    for hostile in (holes, long, outside, path):
        with pytest.raises(IndexFormatError):
            bench.open(hostile, bench.MemoryFetcher(blob))


def test_memory_in_flight_is_bounded(bench, monkeypatch):
    monkeypatch.setattr("clip_runc.store.workers.BUDGET", 300_000)
    monkeypatch.setattr("clip_runc.store.fetch_plan.MANY", 0)  # each chunk is as one of 2 MiB
    data = bench.make_data(4 * SIZE)
    layer, blob = bench.make_layer(data)
    fetcher = bench.MemoryFetcher(blob, delay=0.005)
    store = bench.store()
    reader = store.open_layer(layer, lambda _: b"", fetcher)
    futures = [reader.request(chunk.raw_start, 65536) for chunk in layer.chunks]
    for future, chunk in zip(futures, layer.chunks, strict=True):
        assert future.result(10) == data[chunk.raw_start : chunk.raw_end]
    assert store._pool.peak_in_flight < 300_000 + 5 * 65536 * 2
    assert store._pool.in_flight >= 0
    assert store.stats().chunks >= len(layer.chunks)


def test_a_hostile_mix_of_everything_gives_right_bytes(bench, provokes, until):
    """Readers, prefetch, failures and flipped bits all at once."""
    data = bench.make_data(2 * SIZE)
    layer, blob = bench.make_layer(data, chunk_size=16 << 10)
    fetcher = bench.MemoryFetcher(blob, delay=0.001)
    rng = random.Random(5)
    faults = [None, flip, RegistryUnreachable("x"), lambda data: data[:7]]
    fetcher.faults = [rng.choice(faults) or (lambda data: data) for _ in range(150)]
    reader = bench.open(layer, fetcher)

    def read(seed: int) -> int:
        rng, failed = random.Random(seed), 0
        for _ in range(60):
            offset, length = rng.randrange(2 * SIZE), rng.randrange(1, 50_000)
            try:
                found = reader.request(offset, length).result(20)
            except (RegistryUnreachable, DigestMismatch, LayerFormatError):
                failed += 1
            else:
                assert found == data[offset : offset + length]
            if rng.random() < 0.05:
                reader.prefetch([rng.randrange(reader.chunk_count)]).cancel()
        return failed

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(read, range(16))) < 300
    assert reader.request(0, 2 * SIZE).result(20) == data
    until(lambda: reader._state.pool.in_flight == 0)
    assert not reader._state.pending
