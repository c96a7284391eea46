from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import IndexFormatError
from clip_runc.index.chunk_table import (
    MAX_CHUNKS,
    RECORD_SIZE,
    pack_chunks,
    unpack_chunks,
    without_windows,
)
from clip_runc.index.model import Chunk

LONG, SHORT = st.integers(0, 1 << 60), st.integers(0, (1 << 32) - 1)


@st.composite
def chunks(draw):
    raw, comp = draw(LONG), draw(LONG)
    return Chunk(
        raw,
        raw + draw(SHORT),
        comp,
        comp + draw(SHORT),
        draw(st.binary(min_size=32, max_size=32)),
        draw(st.integers(0, 7)),
        (draw(LONG), draw(SHORT)),
        draw(st.integers(0, 511)),
        draw(SHORT),
    )


@given(st.lists(chunks(), max_size=5).map(tuple))
def test_round_trip(table):
    packed = pack_chunks(table)
    assert len(packed) == len(table) * RECORD_SIZE
    assert unpack_chunks(packed) == table


@given(st.lists(chunks(), max_size=5))
def test_without_windows_is_the_same_table_but_for_them(table):
    plain = [replace(chunk, window=(0, 0)) for chunk in table]
    assert without_windows(pack_chunks(table)) == pack_chunks(plain)


@pytest.mark.parametrize("size", [1, RECORD_SIZE - 1, RECORD_SIZE * (MAX_CHUNKS + 1)])
def test_sizes_that_no_table_has(size):
    with pytest.raises(IndexFormatError):
        unpack_chunks(bytes(size))
