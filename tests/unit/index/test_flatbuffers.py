"""Reading FlatBuffers: what was written, and bytes that nobody should have."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.index.flatbuffers import Buffer, Table
from tests.unit.index.ztoc_writer import flatbuffer

DATA = flatbuffer(
    {
        0: "text",
        2: ("q", -5),
        3: ("i", -6),
        4: ("I", 7),
        5: ("B", 8),
        6: {1: b"\0\xff"},
        7: ["a", "bc"],
        8: [{0: "x"}, {0: "y"}],
    }
)


def everything(root: Table) -> list[object]:
    inner = root.table(6)
    return [
        *(root.blob(0), root.i64(2), root.i32(3), root.u32(4), root.u8(5, 0)),
        inner and inner.blob(1),
        list(root.blobs(7)),
        [one.blob(0) for one in root.tables(8)],
    ]


def test_what_was_written_is_read():
    expected = [b"text", -5, -6, 7, 8, b"\0\xff", [b"a", b"bc"], [b"x", b"y"]]
    assert everything(Buffer(DATA).root()) == expected


def test_what_is_not_there_is_empty():
    root = Buffer(flatbuffer({})).root()
    assert everything(root) == [b"", 0, 0, 0, 0, None, [], []]
    assert root.u8(5, 9) == 9
    assert Buffer(DATA).root().i64(1) == 0  # has no field 1, though later ones


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read_within_bounds(data):
    with contextlib.suppress(LayerFormatError):
        everything(Buffer(data).root())


@given(st.integers(0, len(DATA) - 1), st.integers(0, 255))
def test_a_wrong_byte_reads_within_bounds(place, value):
    wrong = bytearray(DATA)
    wrong[place] = value
    with contextlib.suppress(LayerFormatError):
        everything(Buffer(bytes(wrong)).root())


def test_the_same_bytes_again_and_again_are_counted():
    text = b"x" * 1000
    data = bytearray(flatbuffer({0: [text, text]}))
    assert len(list(Buffer(bytes(data)).root().blobs(0))) == 2
    buffer = Buffer(bytes(data))
    with pytest.raises(LayerFormatError, match="more bytes than it has"):
        for _ in range(10):
            list(buffer.root().blobs(0))
