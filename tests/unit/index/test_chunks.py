"""Extents to chunks."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.index.chunks import chunk_map
from clip_runc.index.model import Entry, Extent


def entry(size: int, *extents: Extent, literal: bytes = b"") -> Entry:
    return Entry(b"f", stat.S_IFREG, size=size, extents=extents, literal=literal)


@pytest.mark.parametrize("size", [1, 512, 513, 70_000, 3 << 30, 1 << 40])
def test_a_file_in_one_piece_is_one_chunk(size: int) -> None:
    chunks = chunk_map(entry(size, Extent(0, 4096, size)), 1)
    assert list(chunks.streams()) == [4096]
    assert 1 << chunks.bits >= size


def test_a_file_over_a_tebibyte_takes_more() -> None:
    chunks = chunk_map(entry(3 << 40, Extent(0, 512, 3 << 40)), 3)
    assert list(chunks.streams()) == [512, 512 + (1 << 40), 512 + (2 << 40)]


def test_a_hole_is_one_chunk() -> None:
    assert list(chunk_map(entry(1 << 39), 1).streams()) == [None]


def test_extents_that_touch_are_joined() -> None:
    chunks = chunk_map(entry(2000, Extent(0, 512, 1024), Extent(1024, 1536, 976)), 1)
    assert list(chunks.streams()) == [512]


@pytest.mark.parametrize(
    "extents",
    [
        [Extent(0, 100, 512)],
        [Extent(100, 0, 512)],
        [Extent(0, 0, 100)],
        [Extent(512, 512, 512), Extent(0, 0, 512)],
        [Extent(0, 0, 1024), Extent(512, 5120, 512)],
        [Extent(0, 0, 8192)],
        [Extent(0, 0, 0)],
        [Extent(0, ~100, 512)],
    ],
)
def test_what_blocks_cannot_say_is_refused(extents: list[Extent]) -> None:
    with pytest.raises(LayerFormatError, match="blocks"):
        chunk_map(entry(4096, *extents), 100)


def test_a_sparse_bomb_is_refused() -> None:
    with pytest.raises(LayerFormatError, match="chunk indexes"):
        chunk_map(entry(1 << 42, Extent(512, 512, 512)), 1 << 23)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6), st.booleans()), max_size=8),
    st.integers(0, 3000),
    st.integers(0, 511),
)
def test_chunks_say_what_extents_say(
    pieces: list[tuple[int, int, bool]], hole: int, cut: int
) -> None:
    at, literal, extents, expected = 0, 0, [], {}
    stream = 512
    for gap, blocks, kept in pieces:
        at += gap
        place = ~literal if kept else stream
        extents.append(Extent(at * 512, place, blocks * 512))
        for block in range(blocks):
            expected[at + block] = place - block * 512 if kept else place + block * 512
        at += blocks
        literal += blocks * 512 * kept
        stream += blocks * 512 + 512
    size = at * 512 + hole or 1
    if extents and not hole:
        size -= cut
        last = extents[-1]
        extents[-1] = Extent(last.logical, last.stream, last.length - cut)
    chunks = chunk_map(entry(size, *extents), 1 << 20)
    step = 1 << chunks.bits
    found = list(chunks.streams())
    assert len(found) == chunks.count == -(-size // step)
    for block in range(-(-size // 512)):
        start = found[block * 512 // step]
        inside = block * 512 % step
        value = None if start is None else start - inside if start < 0 else start + inside
        assert value == expected.get(block)
