"""A prefetch list at work, on a real store and a registry in memory."""

from __future__ import annotations

import threading
import time

import pytest

from clip_runc.store.replay import PORTION, Part, Replay, _portions


@pytest.fixture
def layer(bench):
    """A layer of 40 chunks behind a slow registry."""
    data = bench.make_data(40 * 4096)
    layer, blob = bench.make_layer(data, 4096)
    fetcher = bench.MemoryFetcher(blob)
    return bench.open(layer, fetcher), fetcher, data


def test_the_listed_chunks_come_in_order_and_nothing_else(layer, until):
    reader, fetcher, data = layer
    done = threading.Event()
    replay = Replay([Part(reader, 30, 33), Part(reader, 2, 2)], done=done.set)
    replay.start()
    assert done.wait(10)
    assert reader.present() == 5
    assert reader.read_cached(30 * 4096, 4 * 4096) == data[30 * 4096 : 34 * 4096]
    assert reader.read_cached(0, 10) is None
    assert len(fetcher.ranges) == 2  # neighbours travel together
    assert replay.bytes == sum(reader.compressed(n) for n in (2, 30, 31, 32, 33))


def test_a_read_is_served_before_what_is_listed(bench):
    data = bench.make_data(400 * 4096)
    layer, blob = bench.make_layer(data, 4096)
    fetcher = bench.MemoryFetcher(blob, delay=0.05)
    reader = bench.open(layer, fetcher)
    replay = Replay([Part(reader, 0, 380)])
    replay.start()
    assert reader.request(399 * 4096, 10).result(10) == data[399 * 4096 : 399 * 4096 + 10]
    assert reader.present() < 380
    replay.stop()
    replay.join(10)


def test_when_it_is_stopped_what_was_not_begun_is_left_out(layer):
    reader, fetcher, _ = layer
    fetcher.gate.clear()
    replay = Replay([Part(reader, n, n) for n in range(0, 40, 2)])
    replay.start()
    end = time.monotonic() + 30
    while not fetcher.running and time.monotonic() < end:
        time.sleep(0.002)
    replay.stop()
    replay.join(10)
    fetcher.gate.set()
    time.sleep(0.1)
    assert 0 < reader.present() < 20


def test_a_rate_is_kept(layer):
    reader, _, _ = layer
    size = sum(reader.compressed(n) for n in range(40))
    began = time.monotonic()
    replay = Replay([Part(reader, 0, 39)], rate=size * 2)
    replay.start()
    replay.join(20)
    # half a second's worth, less the last portion, which may come at once
    assert time.monotonic() - began > 0.3
    assert reader.present() == 40


def test_a_chunk_that_cannot_be_had_holds_up_nothing(layer, provokes):
    from clip_runc.errors import RegistryUnreachable

    reader, fetcher, _ = layer
    fetcher.faults = [RegistryUnreachable("down")]
    replay = Replay([Part(reader, 0, 0), Part(reader, 20, 21)])
    replay.start()
    replay.join(10)
    assert reader.present() == 2


def test_portions_hold_what_fits_and_at_least_one_chunk(layer):
    reader, _, _ = layer
    found = _portions(Part(reader, 3, 9), 1)
    assert [(first, last) for first, last, _ in found] == [(n, n) for n in range(3, 10)]
    assert _portions(Part(reader, 3, 9), PORTION)[0][:2] == (3, 9)


def test_an_empty_list_is_over_at_once():
    done = threading.Event()
    Replay([], done=done.set).start()
    assert done.wait(10)


def test_a_list_that_came_in_time_stays_a_list(bench):
    """Who reads it later than it was fetched is not read ahead for; after an early stop, he is."""
    size, read = 1 << 16, 3 << 20
    data = bench.make_data(8 << 20)
    layer, blob = bench.make_layer(data, size)
    for early in (False, True):
        fetcher = bench.MemoryFetcher(blob)
        reader = bench.open(layer, fetcher)
        done = threading.Event()
        replay = Replay([Part(reader, 0, read // size - 1)], done=done.set)
        replay.start()
        assert done.wait(10)
        replay.join(10)
        if early:
            replay = Replay([Part(reader, 0, read // size - 1)])
            replay.stop()
        replay.stop()
        for offset in range(0, read, size):
            assert reader.request(offset, size).result(10) == data[offset : offset + size]
        time.sleep(0.2)
        ahead = reader.present() - read // size
        assert (ahead > 0) is early
        reader.close()
