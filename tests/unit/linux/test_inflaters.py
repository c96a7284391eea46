import contextlib
import ctypes
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.linux import inflaters, isa_l
from clip_runc.linux.inflaters import gzip_inflater
from clip_runc.linux.isa_l import FastInflater
from clip_runc.linux.zlib_ng import BlockInflater, GzipInflater, InflateError

RNG = random.Random(7)
WORDS = [RNG.randbytes(RNG.randrange(2, 12)) for _ in range(2000)]
DATA = b" ".join(RNG.choices(WORDS, k=60_000)) + bytes(100_000) + RNG.randbytes(50_000)


def packed(data, level=6, wbits=31, strategy=0):
    packer = zlib.compressobj(level, zlib.DEFLATED, wbits, 8, strategy)
    return packer.compress(data) + packer.flush()


BLOB = packed(DATA)


def blocks(stream, start=80):
    """{bit: raw} of all blocks, found one by one."""
    found = {start: 0}
    inflater = BlockInflater(start, 0, b"")
    place = (start, 0, b"")
    while inflater.seek(stream[place[0] // 8 :], 0, 0):
        place = (inflater.bit, inflater.raw, inflater.window())
        found[place[0]] = place[1]
        inflater.close()
        inflater = BlockInflater(*place)
    assert inflater.ended
    return found, inflater.bit // 8, inflater.raw


def inflate(blob, step=70_001, room=50_021, make=FastInflater):
    """All of a gzip member, and what was taken of the blob."""
    inflater, out, found = make(), bytearray(room), []
    at, made = 0, 0
    while not inflater.finished and (at < len(blob) or made == room):
        used, made = inflater.inflate(blob, at, min(len(blob), at + step), out, 0, room)
        found.append(bytes(out[:made]))
        at += used
    return b"".join(found), at - inflater.excess


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("strategy", [0, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY])
def test_all_say_the_same(level, strategy):
    blob = packed(DATA, level, strategy=strategy)
    for make in (FastInflater, GzipInflater):
        data, end = inflate(blob + b"more", make=make)
        assert (data, end) == (DATA, len(blob))
    found, last, raw = blocks(blob + b"more")
    assert (last + 8, raw) == (len(blob), len(DATA))
    assert len(found) > 5


def test_pieces_of_any_size_find_the_same_block():
    found, _, _ = blocks(BLOB)
    for bit, raw in list(found.items())[1::5]:
        for step in (101, 1000, len(BLOB)):
            inflater = BlockInflater(80, 0, b"")
            at = 10
            while not inflater.seek(BLOB[at : at + step], bit, 1 << 60):
                at += step
            assert (inflater.bit, inflater.raw) == (bit, raw)
            assert inflater.window() == DATA[max(0, raw - 32768) : raw]
            inflater.close()


def test_seeking_by_uncompressed_bytes_and_past_some():
    found = blocks(BLOB)[0]
    raws = sorted(found.values())
    for wanted in (1, raws[3], raws[3] + 1, raws[-1]):
        inflater = BlockInflater(80, 0, b"")
        assert inflater.seek(BLOB[10:], 1 << 60, wanted)
        assert inflater.raw == min(raw for raw in raws if raw >= wanted)
    inflater = BlockInflater(80, 0, b"")
    assert inflater.seek(BLOB[10:], 0, 0, raws[2])
    assert inflater.raw == raws[3]


def test_the_last_block_that_is_named_is_one():
    found = blocks(BLOB)[0]
    named = 0
    for start in range(0, len(BLOB) - 40_000, 19_973):
        inflater, out = FastInflater(), bytearray(len(DATA) + 1)
        used, made = inflater.inflate(BLOB, 0, start, out, 0, len(out))
        assert used == start
        inflater.remember()
        data = BLOB[start : start + 40_000]
        inflater.inflate(data, 0, len(data), out, made, len(out))  # remember() is not undone
        block = inflater.last_block(data, len(out))
        if block is None:
            continue
        named += 1
        assert found[start * 8 + block.bit] == made + block.raw
        before = DATA[made : made + block.raw]
        assert block.window == before[-32768:]
        later = [bit for bit in found if start * 8 + block.bit < bit < (start + 36_000) * 8]
        assert len(later) < 3
        most = block.raw - 1
        earlier = inflater.last_block(data, most)
        assert earlier is None or earlier.raw <= most
    assert named > 5


@given(
    blob=st.one_of(
        st.binary(max_size=2000),
        st.builds(
            lambda at, byte: BLOB[:at] + bytes([byte]) + BLOB[at + 1 :],
            st.integers(0, len(BLOB) - 1),
            st.integers(0, 255),
        ),
        st.builds(lambda at: BLOB[: len(BLOB) // 2] + BLOB[at:], st.integers(0, len(BLOB))),
    ),
    room=st.integers(3_000, 70_000),
    make=st.sampled_from([FastInflater, GzipInflater]),
)
@settings(max_examples=60, deadline=None)
def test_damage_is_an_error_or_other_bytes_and_nothing_else(blob, room, make):
    try:
        data, end = inflate(blob, room=room, make=make)
    except InflateError:
        pass
    else:
        assert 0 <= end <= len(blob)
        assert len(data) <= 1032 * len(blob)
    with contextlib.suppress(InflateError, AssertionError):  # it may not end
        blocks(blob)


@given(bit=st.integers(0, 100), data=st.binary(max_size=3000), window=st.binary(max_size=40_000))
@settings(max_examples=60, deadline=None)
def test_any_bytes_as_blocks(bit, data, window):
    inflater = BlockInflater(bit, 0, window)
    try:
        inflater.seek(data, 1 << 60, 1 << 60)
        assert len(inflater.window()) <= 32768
    except InflateError:
        pass


@given(start=st.integers(0, 3000), junk=st.binary(max_size=9000))
@settings(max_examples=100, deadline=None)
def test_any_bytes_after_what_was_remembered(start, junk):
    inflater, out = FastInflater(), bytearray(len(DATA))
    inflater.inflate(BLOB, 0, start, out, 0, len(out))
    inflater.remember()
    block = inflater.last_block(junk, len(out))
    assert block is None or 0 <= block.bit <= len(junk) * 8


@pytest.mark.parametrize("make", [FastInflater, GzipInflater])
def test_c_is_given_nothing_beyond_the_buffers(make):
    inflater, out = FastInflater(), bytearray(10)
    for bad in (
        (-1, 5, 0, 10),
        (5, 4, 0, 10),
        (0, len(BLOB) + 1, 0, 10),
        (0, 5, 0, 11),
        (0, 5, 6, 5),
    ):
        with pytest.raises(IndexError):
            inflater.inflate(BLOB, bad[0], bad[1], out, bad[2], bad[3])


@pytest.fixture
def asked_again():
    inflaters._isal_is_known.cache_clear()
    yield
    inflaters._isal_is_known.cache_clear()


def test_isal_as_it_is(asked_again):
    assert isinstance(gzip_inflater(), FastInflater)


@pytest.mark.parametrize("member", ["tmp_in_size", "read_in_length", "block_state", "codes"])
def test_an_isal_that_we_do_not_know(asked_again, monkeypatch, member):
    """Its structure is another: a member lies elsewhere."""
    fields = [(name, kind) for name, kind in isa_l._InflateState._fields_]
    place = [name for name, _ in fields].index(member)
    fields.insert(place, ("new", ctypes.c_uint32))
    other = type("Other", (ctypes.Structure,), {
        "_fields_": fields, "codes_now": isa_l._InflateState.codes_now,
    })  # fmt: skip
    monkeypatch.setattr(isa_l, "_InflateState", other)
    assert isinstance(gzip_inflater(), GzipInflater)


def test_no_isal(asked_again, monkeypatch):
    monkeypatch.setattr(isa_l, "_load", object)
    assert isinstance(gzip_inflater(), GzipInflater)
