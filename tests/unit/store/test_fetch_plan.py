"""Which chunks travel together: for every chunk table, also one that lies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clip_runc.index.model import Chunk
from clip_runc.store.fetch_plan import GAP, MANY, SMALL, Limits, follows, runs, widen


def table(*ranges):
    return [Chunk(n, n + 1, start, end, bytes(32)) for n, (start, end) in enumerate(ranges)]


tables = st.lists(
    st.tuples(st.integers(0, 60_000), st.integers(1, 20_000)), min_size=1, max_size=12
).map(lambda pairs: table(*((start, start + size) for start, size in pairs)))
tiled = st.lists(st.integers(1, 20_000), min_size=1, max_size=12).map(
    lambda sizes: table(*((sum(sizes[:n]), sum(sizes[: n + 1])) for n in range(len(sizes))))
)


@given(
    chunks=st.one_of(tables, tiled),
    data=st.data(),
    limits=st.builds(Limits, st.integers(1, 6), st.integers(1, 60_000)),
)
def test_a_request_is_wanted_next_to_each_other_and_within_limits(chunks, data, limits):
    chunk = data.draw(st.integers(0, len(chunks) - 1))
    wanted = data.draw(st.sets(st.integers(0, len(chunks) - 1))) | {chunk}
    first, last = widen(chunks, chunk, wanted.__contains__, limits)
    assert 0 <= first <= chunk <= last < len(chunks)
    assert set(range(first, last + 1)) <= wanted
    size = chunks[last].comp_end - chunks[first].comp_start
    assert last - first < limits.chunks or (last - first < MANY and size <= SMALL)
    if first != last:
        assert size <= limits.bytes
    assert runs(chunks, first, last) == [(first, last)]


@given(chunks=st.one_of(tables, tiled))
def test_runs_cover_everything_once_and_hold_their_chunks(chunks):
    found = runs(chunks, 0, len(chunks) - 1)
    assert [n for low, high in found for n in range(low, high + 1)] == list(range(len(chunks)))
    for low, high in found:
        start, end = chunks[low].comp_start, chunks[high].comp_end
        for chunk in chunks[low : high + 1]:
            assert start <= chunk.comp_start < chunk.comp_end <= end


def test_chunks_that_share_a_byte_or_leave_a_small_gap_follow_each_other():
    assert follows(table((0, 100), (99, 200)), 0)
    assert follows(table((0, 100), (100, 200)), 0)
    assert follows(table((0, 100), (100 + GAP, 5000)), 0)
    assert not follows(table((0, 100), (101 + GAP, 5000)), 0)
    assert not follows(table((0, 100), (98, 200)), 0)
    assert not follows(table((500, 600), (0, 100)), 0)
    assert not follows(table((0, 100), (99, 100)), 0)


def test_chunks_out_of_the_same_bytes_travel_together_and_tiny_ones_in_great_number():
    assert follows(table((0, 100), (0, 100)), 0)
    tiny = table(*((n * 100, n * 100 + 100) for n in range(1000)))
    assert widen(tiny, 0, lambda chunk: True, Limits(1, 4 << 20)) == (0, MANY - 1)
    large = table(*((n << 18, (n + 1) << 18) for n in range(10)))
    assert widen(large, 0, lambda chunk: True, Limits(1, 4 << 20)) == (0, 1)
