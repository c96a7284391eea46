"""A store that is opened again: after a restart, a reboot, damage; and one that is broken."""

from __future__ import annotations

import errno
import os
import resource
import stat
import time
from dataclasses import replace

import pytest

from clip_runc.store.record import HEADER

SIZE = 1_000_000


@pytest.fixture
def filled(bench, until):
    """A layer that is complete on disk, its data, a fetcher, and how to open it again."""
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    reader = bench.open(layer, bench.MemoryFetcher(blob))
    reader.prefetch()
    until(lambda: reader.complete)
    bench.close()
    return layer, data, bench.MemoryFetcher(blob), bench.path / reader.data_path


def read_all(reader, data):
    assert b"".join(
        reader.request(at, 50_000).result(10) for at in range(0, SIZE, 50_000)
    ) == data  # fmt: skip


def test_modes_of_what_is_made(bench, filled):
    path = filled[3]
    assert path.parts[-2:] == (filled[0].diff_hex, "data")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in (path, path.with_name("record")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_in_the_same_boot_everything_is_trusted(bench, filled):
    layer, data, fetcher, _ = filled
    reader = bench.open(layer, fetcher)
    assert reader.complete and reader.read_cached(0, SIZE) == data
    assert reader.stats.checked == 0 and fetcher.ranges == []


def test_after_a_reboot_everything_is_hashed_before_it_is_used(bench, filled, until):
    layer, data, fetcher, _ = filled
    reader = bench.open(layer, fetcher, bench.OTHER_BOOT)
    assert not reader.complete and reader.read_cached(0, 10) is None
    read_all(reader, data)
    until(lambda: reader.complete)
    assert reader.stats.checked == len(layer.chunks) and fetcher.ranges == []


def overwrite(path, offset, noise):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(noise)


@pytest.mark.parametrize("boot", ["BOOT", "OTHER_BOOT"])
@pytest.mark.parametrize("damage", ["overwritten", "truncated", "emptied", "gone", "replaced"])
def test_a_damaged_data_file_is_fetched_again(bench, filled, until, boot, damage):
    layer, data, fetcher, path = filled
    time.sleep(0.02)
    if damage == "overwritten":
        overwrite(path, 100_000, b"evil" * 1000)
    elif damage == "truncated":
        os.truncate(path, 300_000)
    elif damage == "emptied":
        os.truncate(path, 0)
    else:
        path.unlink()
        if damage == "replaced":
            path.write_bytes(bytes(len(data) // 512 * 512 + 512))
            os.utime(path, (0, 0))
    reader = bench.open(layer, fetcher, getattr(bench, boot))
    read_all(reader, data)
    until(lambda: reader.complete)
    assert fetcher.ranges
    assert path.read_bytes()[:SIZE] == data


@pytest.mark.parametrize("damage", ["overwritten", "truncated", "emptied"])
def test_damage_while_the_layer_is_open_is_noticed(bench, filled, provokes, damage):
    layer, data, fetcher, path = filled
    reader = bench.open(layer, fetcher)
    assert reader.read_cached(0, SIZE) == data
    time.sleep(0.02)
    if damage == "overwritten":
        overwrite(path, 500_000, b"evil" * 1000)
    else:
        os.truncate(path, 400_000 if damage == "truncated" else 0)
    assert reader.read_cached(500_000, 10) is None
    assert not reader.complete
    read_all(reader, data)
    assert "changed under us" in provokes.text
    assert reader.stats.chunks < len(layer.chunks) or damage == "emptied"


@pytest.mark.parametrize(
    "damage",
    [
        lambda old: b"",
        lambda old: b"rubbish" * 50,
        lambda old: b"CLIPREC\x07" + old[8:],
        lambda old: old[:HEADER] + os.urandom(len(old) - HEADER),
        lambda old: old[: len(old) // 2],
    ],
    ids=["empty", "rubbish", "version", "entries", "half"],
)
def test_a_damaged_record_costs_verification_and_nothing_else(bench, filled, damage):
    layer, data, fetcher, path = filled
    record = path.with_name("record")
    record.write_bytes(damage(record.read_bytes()))
    reader = bench.open(layer, fetcher)
    assert not reader.complete
    read_all(reader, data)
    assert reader.stats.verify_failures == 0


def test_the_same_layer_with_other_chunks_verifies_what_is_there(bench, filled):
    _, data, _, path = filled
    other, blob = bench.make_layer(data, chunk_size=100_000)
    reader = bench.open(other, bench.MemoryFetcher(blob))
    assert (bench.path / reader.data_path) == path
    read_all(reader, data)
    assert reader.stats.checked == len(other.chunks) and reader.stats.requests == 0


def test_other_chunks_at_the_same_time_get_a_directory_of_their_own(bench, filled):
    """An index that lies about a layer must not reach the readers of an honest one."""
    layer, data, fetcher, _ = filled
    store = bench.store()
    honest = store.open_layer(layer, lambda _: b"", fetcher)
    evil_data = b"\xee" * SIZE
    evil, blob = bench.make_layer(evil_data)
    evil = replace(evil, diff_id=layer.diff_id)
    liar = store.open_layer(evil, lambda _: b"", bench.MemoryFetcher(blob))
    assert liar is not honest and liar.data_path != honest.data_path
    read_all(liar, evil_data)
    assert honest.read_cached(0, SIZE) == data
    store.close_layer(liar)
    store.close_layer(honest)
    # alone, it gets the directory, and every byte of it is suspect both ways
    again = store.open_layer(evil, lambda _: b"", bench.MemoryFetcher(blob))
    assert again.data_path == honest.data_path
    read_all(again, evil_data)
    store.close_layer(again)
    read_all(store.open_layer(layer, lambda _: b"", fetcher), data)


def test_an_old_and_a_new_server_at_once(bench, provokes):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    old = bench.open(layer, bench.MemoryFetcher(blob))
    old.request(0, 300_000).result(30)
    new = bench.open(layer, bench.MemoryFetcher(blob))
    assert new.data_path == old.data_path
    for at in range(0, SIZE, 100_000):
        for reader in (old, new):
            assert reader.request(at, 90_000).result(30) == data[at : at + 90_000]
    bench.close()
    fetcher = bench.MemoryFetcher(blob)
    read_all(bench.open(layer, fetcher), data)
    assert fetcher.ranges == []


def fail_writes(monkeypatch, number):
    def refuse(fd, data, offset):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", refuse)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_reads_succeed_when_nothing_can_be_stored(bench, monkeypatch, provokes, until, number):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    fetcher = bench.MemoryFetcher(blob)
    reader = bench.open(layer, fetcher)
    reader.request(0, 10).result(30)
    until(lambda: reader.present() == 1)
    fail_writes(monkeypatch, number)
    for at in range(0, SIZE, 10_000):
        assert reader.request(at, 10_000).result(30) == data[at : at + 10_000]
    # a chunk is not fetched for each of its reads
    assert len(fetcher.ranges) < 2 * len(layer.chunks)
    assert reader.present() == 1 and not reader.complete
    assert reader.stats.store_errors >= len(layer.chunks) - 1
    assert provokes.text.count(os.strerror(number)) == 1
    monkeypatch.undo()
    read_all(reader, data)
    until(lambda: reader.present() > 3)


def test_a_file_that_may_not_grow(bench, provokes):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        read_all(bench.open(layer, bench.MemoryFetcher(blob)), data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in provokes.text


def test_errors_in_reading_and_syncing(bench, filled, monkeypatch, provokes):
    layer, data, fetcher, _ = filled
    reader = bench.open(layer, fetcher)

    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", refuse)
    assert reader.request(0, 50_000).result(30) == data[:50_000]
    monkeypatch.undo()
    monkeypatch.setattr(os, "fdatasync", refuse)
    read_all(reader, data)
    time.sleep(0.05)
    assert not reader.complete
    assert "Input/output error" in provokes.text


def test_a_store_whose_files_are_not_ours_serves_from_memory(bench, provokes):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data)
    (bench.path / layer.diff_hex).symlink_to("/etc")
    reader = bench.open(layer, bench.MemoryFetcher(blob))
    read_all(reader, data)
    assert reader.present() == 0 and "cannot be used" in provokes.text


def test_files_are_closed_with_the_layer(bench, filled):
    layer, _, fetcher, _ = filled
    before = len(os.listdir("/proc/self/fd"))
    store = bench.store()
    for _ in range(20):
        store.close_layer(store.open_layer(layer, lambda _: b"", fetcher))
    assert len(os.listdir("/proc/self/fd")) == before + 1  # the store's directory
