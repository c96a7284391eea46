"""Bytes that were decoded for an index become a layer of the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from clip_runc.index.model import Layer
from clip_runc.store.adopt import Adoption


class Away:
    """A registry that must not be asked."""

    def read_range(self, *arguments: object, **options: object) -> bytes:
        raise AssertionError("the registry was asked")

    def stream(self, *arguments: object) -> Any:
        raise AssertionError("the registry was asked")


@pytest.fixture
def made(bench: Any) -> tuple[Layer, bytes]:
    data = bench.make_data(100_001)
    return bench.make_layer(data, 4096)[0], data


def adopt(bench: Any, layer: Layer, data: bytes, **options: int) -> Adoption:
    directory = os.open(bench.path, os.O_RDONLY)
    try:
        keep = Adoption(directory, bench.BOOT, **options)
        for at in range(0, len(data), 30_000):
            keep.write(layer.diff_id, at, memoryview(data)[at : at + 30_000])
        keep.done(layer)
        keep.close()
    finally:
        os.close(directory)
    return keep


def test_a_reader_has_all_of_it_without_asking(bench: Any, made: Any) -> None:
    layer, data = made
    assert adopt(bench, layer, data).kept == len(data)
    reader = bench.store().open_layer(layer, lambda _: b"", Away())
    assert reader.present() == reader.chunk_count
    assert reader.read_cached(0, len(data)) == data
    assert reader.complete, "at once: the disk has it"
    assert (Path(bench.path) / reader.data_path).stat().st_size % 512 == 0


def test_what_the_disk_may_not_have_yet_is_complete_a_little_later(
    bench: Any, made: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for gigabytes to be written."""
    layer, data = made
    synced: list[int] = []
    monkeypatch.setattr("clip_runc.store.adopt.PIECE", 4096)
    with monkeypatch.context() as patch:
        patch.setattr("clip_runc.store.data_file.os.fdatasync", synced.append)
        assert adopt(bench, layer, data).kept == len(data)
    assert not synced
    reader = bench.store().open_layer(layer, lambda _: b"", Away())
    until(lambda: reader.complete)


def test_what_was_begun_anew_counts_from_there(bench: Any, made: Any) -> None:
    layer, data = made
    directory = os.open(bench.path, os.O_RDONLY)
    keep = Adoption(directory, bench.BOOT)
    keep.write(layer.diff_id, 0, b"x" * 200_000)
    keep.write(layer.diff_id, 0, data)
    keep.done(layer)
    os.close(directory)
    reader = bench.store().open_layer(layer, lambda _: b"", Away())
    assert reader.read_cached(0, len(data)) == data


def test_wrong_bytes_on_disk_are_found_after_a_reboot(bench: Any, made: Any) -> None:
    """The record is of this boot, as one that the server wrote."""
    layer, data = made
    adopt(bench, layer, data)
    fetcher = bench.MemoryFetcher(bench.make_layer(data, 4096)[1])
    reader = bench.open(layer, fetcher, bench.OTHER_BOOT)
    assert reader.present() == 0 and reader.request(0, 100).result(10) == data[:100]
    assert not fetcher.ranges, "what is there is only verified"


def test_a_layer_that_is_read_stays_as_it_is(bench: Any, made: Any) -> None:
    layer, data = made
    fetcher = bench.MemoryFetcher(bench.make_layer(data, 4096)[1])
    reader = bench.open(layer, fetcher)
    assert reader.request(5000, 10).result(10) == data[5000:5010]
    assert adopt(bench, layer, data).kept == 0
    assert reader.request(0, len(data)).result(10) == data


def test_what_was_fetched_in_part_before_is_replaced(bench: Any, made: Any) -> None:
    layer, data = made
    fetcher = bench.MemoryFetcher(bench.make_layer(data, 4096)[1])
    bench.open(layer, fetcher).request(5000, 10).result(10)
    bench.close()
    assert adopt(bench, layer, data).kept == len(data)
    reader = bench.store().open_layer(layer, lambda _: b"", Away())
    assert reader.read_cached(0, len(data)) == data


def test_a_limit_holds_and_a_layer_that_was_not_finished_leaves_nothing(
    bench: Any, made: Any
) -> None:
    layer, data = made
    assert adopt(bench, layer, data, limit=50_000).kept == 0
    directory = os.open(bench.path, os.O_RDONLY)
    keep = Adoption(directory, bench.BOOT)
    keep.write(layer.diff_id, 0, data)
    keep.close()
    os.close(directory)
    assert not os.listdir(bench.path)


def test_a_store_that_cannot_be_written_costs_nothing(
    bench: Any, made: Any, provokes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, data = made

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clip_runc.linux.direct_io.os.pwrite", full)
    assert adopt(bench, layer, data).kept == 0
