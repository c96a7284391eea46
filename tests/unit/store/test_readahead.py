"""Read-ahead: grows for readers in sequence, several at once; nothing for random ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clip_runc.store.readahead import (
    BOUND,
    FACTOR,
    NEAR,
    PROOF,
    STREAMS,
    ReadAhead,
    bound_of,
)

CHUNK = 4 << 20
READ = 128 << 10


def layer(count: int = 1000, bound: int = 8) -> ReadAhead:
    return ReadAhead([number * CHUNK for number in range(count)], bound)


def read(ahead: ReadAhead, start: int, end: int) -> list[int]:
    """Read in sequence; the chunks that were asked for."""
    found: list[int] = []
    for offset in range(start, end, READ):
        found += ahead.touch(offset, offset + READ)
    return found


def test_a_reader_in_sequence_is_always_ahead_and_each_chunk_is_asked_for_once():
    found = read(layer(), 0, 40 * CHUNK)
    assert found == list(range(1, 40 + 8))


def test_it_reaches_further_the_longer_the_stream_is():
    ahead = layer()
    assert read(ahead, 0, PROOF - READ) == []
    assert read(ahead, PROOF - READ, CHUNK) == [1, 2]
    assert max(read(ahead, CHUNK, 2 * CHUNK)) == 1 + FACTOR * 2
    assert max(read(ahead, 2 * CHUNK, 20 * CHUNK)) == 19 + 8


def test_small_files_in_neighbouring_chunks_are_no_stream():
    ahead = layer()
    for chunk in range(50):
        middle = chunk * CHUNK + CHUNK // 2
        assert not ahead.touch(middle, middle + 4096)


def test_pieces_in_any_order_and_small_gaps_are_one_stream():
    ahead = layer()
    found: list[int] = []
    for offset in range(0, 10 * CHUNK, 4 * READ):
        for piece in (3, 0, 1):  # one is skipped
            found += ahead.touch(offset + piece * READ, offset + (piece + 1) * READ)
    assert found[:10] == list(range(1, 11))


def test_reading_the_same_bytes_again_is_no_progress():
    ahead = layer()
    for _ in range(100):
        assert not ahead.touch(5 * CHUNK, 5 * CHUNK + PROOF // 2)


def test_random_reads_get_nothing():
    ahead = layer()
    for chunk in (900, 3, 500, 50, 7, 300, 100):
        assert not ahead.touch(chunk * CHUNK, chunk * CHUNK + READ)


def test_readers_side_by_side_do_not_disturb_each_other():
    ahead = layer()
    bases = (0, 200 * CHUNK, 400 * CHUNK, 600 * CHUNK)
    found: set[int] = set()
    for offset in range(0, 8 * CHUNK, READ):
        for base in bases:
            found.update(ahead.touch(base + offset, base + offset + READ))
    assert found == {base // CHUNK + n for base in bases for n in range(1, 8 + 8)}


def test_a_stream_that_was_quiet_too_long_is_forgotten():
    ahead = layer()
    read(ahead, 0, CHUNK)
    for number in range(STREAMS):
        ahead.touch((100 + 10 * number) * CHUNK, (100 + 10 * number) * CHUNK + READ)
    assert not ahead.touch(CHUNK, CHUNK + READ)


def test_the_bound_is_one_of_bytes():
    assert bound_of(1000 * (2 << 20), 1000) == BOUND // (2 << 20)
    assert bound_of(1000 * (1 << 20), 1000) == BOUND // (1 << 20)
    assert bound_of(1 << 40, 3) == 2
    assert bound_of(0, 0) == 2


@given(st.lists(st.tuples(st.integers(0, 50 * CHUNK - 1), st.integers(1, 2 * NEAR)), max_size=200))
def test_what_is_asked_for_lies_ahead_in_the_layer_and_is_bounded(reads):
    ahead = layer(50)
    for offset, length in reads:
        end = min(offset + length, 50 * CHUNK)
        found = ahead.touch(offset, end)
        assert not found or found.stop <= 50
        assert not found or offset // CHUNK < found.start
        assert len(found) <= 8
