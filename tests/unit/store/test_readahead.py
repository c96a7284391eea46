"""Read-ahead: grows for readers in sequence, several at once; nothing for random ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clip_runc.store.readahead import STREAMS, ReadAhead


def test_the_window_doubles_up_to_the_bound():
    ahead = ReadAhead(100, bound=8)
    stops = [ahead.touch(chunk).stop for chunk in range(6)]
    assert stops == [0, 3, 5, 8, 13, 14]  # nothing, then 1, 2, 4, 8, 8 chunks ahead


def test_touching_a_chunk_again_changes_nothing():
    ahead = ReadAhead(100)
    assert not ahead.touch(5) and not ahead.touch(5)
    assert ahead.touch(6) and not ahead.touch(6)


def test_random_chunks_get_nothing():
    ahead = ReadAhead(1000)
    assert not any(ahead.touch(chunk) for chunk in (900, 3, 500, 50, 7, 300, 100))
    assert not ahead.marks


def test_readers_side_by_side_do_not_disturb_each_other():
    ahead = ReadAhead(1000)
    for step in range(8):
        stops = [ahead.touch(base + step).stop for base in (0, 200, 400, 600)]
        if step > 4:
            assert all(
                stop > base + step for stop, base in zip(stops, (0, 200, 400, 600), strict=True)
            )


@given(st.lists(st.integers(0, 49), max_size=200))
def test_what_is_asked_for_lies_ahead_in_the_layer_and_is_bounded(touched):
    ahead = ReadAhead(50, bound=8)
    for chunk in touched:
        found = ahead.touch(chunk)
        assert not found or chunk < found.start < found.stop <= min(50, chunk + 9)
        assert chunk not in ahead.marks
        assert len(ahead.marks) <= STREAMS * 9
