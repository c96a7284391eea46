"""Layers that are read from their start once."""

from __future__ import annotations

import threading
import time

import pytest

from clip_runc.errors import ClipError, LayerFormatError, NotFound, RegistryUnreachable

SIZE = 1_000_000


@pytest.fixture
def streamed(bench):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data, codec="stream")
    return layer, data, bench.MemoryFetcher(blob)


def test_one_stream_serves_everybody_and_runs_to_the_end(bench, streamed, until):
    layer, data, fetcher = streamed
    reader = bench.open(layer, fetcher)
    futures = [reader.request(at, 5000) for at in range(SIZE - 5000, 0, -90_000)]
    for future, at in zip(futures, range(SIZE - 5000, 0, -90_000), strict=True):
        assert future.result(30) == data[at : at + 5000]
    until(lambda: reader.complete)
    assert len(fetcher.ranges) == 1 and reader.read_cached(0, SIZE) == data


def test_a_reader_waits_for_its_offset_only(bench, streamed):
    layer, data, fetcher = streamed
    half = threading.Event()
    whole = fetcher.stream

    def stalling(digest, size, start=0):
        for number, piece in enumerate(whole(digest, size, start)):
            if number * 10_000 > size // 2:
                half.wait(10)
            yield piece

    fetcher.stream = stalling
    reader = bench.open(layer, fetcher)
    late = reader.request(SIZE - 10, 10)
    assert reader.request(0, 10).result(30) == data[:10]
    assert not late.done()
    half.set()
    assert late.result(30) == data[-10:]


def test_a_broken_stream_is_taken_up_where_it_broke(bench, streamed, until):
    layer, data, fetcher = streamed
    fetcher.faults = [RegistryUnreachable("cut")]
    reader = bench.open(layer, fetcher)
    assert reader.request(0, SIZE).result(30) == data
    assert fetcher.ranges[1][0] > layer.comp_size // 2
    assert reader.stats.fetched_bytes == layer.comp_size


def test_a_flipped_bit_begins_the_stream_again(bench, streamed, provokes):
    layer, data, fetcher = streamed
    fetcher.faults = [lambda piece: piece[:100] + bytes((piece[100] ^ 1,)) + piece[101:]]
    reader = bench.open(layer, fetcher)
    assert reader.request(0, SIZE).result(30) == data
    assert reader.stats.verify_failures == 1


def test_a_failure_is_told_and_the_next_read_tries_again(bench, streamed, provokes):
    layer, data, fetcher = streamed
    fetcher.faults = [NotFound("gone")] * 12
    reader = bench.open(layer, fetcher)
    with pytest.raises(NotFound):
        reader.request(SIZE - 10, 10).result(30)
    fetcher.faults = []
    assert reader.request(SIZE - 10, 10).result(30) == data[-10:]


def test_a_stream_that_ends_early_or_says_too_much_is_an_error(bench, streamed, provokes):
    from dataclasses import replace

    layer, data, fetcher = streamed
    reader = bench.open(replace(layer, comp_size=layer.comp_size - 500), fetcher)
    with pytest.raises(ClipError):
        reader.request(SIZE - 10, 10).result(30)
    more, blob = bench.make_layer(data + data, codec="stream")
    short = replace(
        more, chunks=layer.chunks, raw_size=SIZE, diff_id="sha256:" + "7" * 64
    )  # fmt: skip
    reader = bench.open(short, bench.MemoryFetcher(blob))
    reader.request(0, 10).result(30)
    time.sleep(0.05)


def test_what_is_there_is_not_written_again_and_what_is_suspect_is_checked(bench, streamed, until):
    layer, data, fetcher = streamed
    reader = bench.open(layer, fetcher)
    reader.request(0, SIZE).result(30)
    until(lambda: reader.complete)
    bench.close()
    reader = bench.open(layer, fetcher, bench.OTHER_BOOT)
    assert reader.request(0, SIZE).result(30) == data
    assert len(fetcher.ranges) == 1 and reader.stats.checked == len(layer.chunks)
    bench.close()
    path = bench.path / reader.data_path
    content = bytearray(path.read_bytes())
    content[200_000:200_010] = bytes(10)
    path.write_bytes(content)
    reader = bench.open(layer, fetcher, bench.OTHER_BOOT)
    assert reader.request(0, SIZE).result(30) == data
    assert len(fetcher.ranges) == 2


def test_layer_format_errors_are_ours(bench, provokes):
    layer, _ = bench.make_layer(bench.make_data(SIZE), codec="stream")
    from dataclasses import replace

    junk = b"no zstd at all" * 1000
    fetcher = bench.MemoryFetcher(junk)
    digest = next(iter(fetcher.blobs))
    reader = bench.open(replace(layer, digest=digest, comp_size=len(junk)), fetcher)
    with pytest.raises(LayerFormatError):
        reader.request(0, 10).result(30)
