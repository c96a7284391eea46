"""Gzip streams of all shapes, whole and damaged, through the decoder that cuts them."""

import gzip
import random
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.images import gzip_cuts, gzip_source
from clip_runc.images.gzip_source import Buffers, gzip_pieces
from clip_runc.images.spool import Spool
from clip_runc.index.inflate import inflate_chunk
from clip_runc.index.model import Chunk, Layer
from clip_runc.linux.zlib_ng import GzipInflater
from tests.unit.images.blobs import sha

KIB = 1 << 10
RNG = random.Random(11)
WORDS = [RNG.randbytes(RNG.randrange(2, 12)) for _ in range(900)]


def content(size, seed):
    rng = random.Random(seed)
    parts = [
        b" ".join(rng.choices(WORDS, k=size // 20)),
        bytes(size // 3),
        rng.randbytes(size // 4),
    ]
    rng.shuffle(parts)
    return b"".join(parts)


@st.composite
def members(draw):
    """(what it holds, gzip of it)."""
    data = content(draw(st.integers(0, 120_000)), draw(st.integers(0, 99)))
    level = draw(st.integers(0, 9))
    strategy = draw(st.sampled_from([0, 0, 0, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE]))
    memory = draw(st.integers(1, 9))
    flush = draw(st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH]))
    packer = zlib.compressobj(level, zlib.DEFLATED, 31, memory, strategy)
    half = len(data) // 2
    blob = packer.compress(data[:half])
    if draw(st.booleans()):
        blob += packer.flush(flush)
    return data, blob + packer.compress(data[half:]) + packer.flush()


def decoded(blob, step=65536, kib=8, **patched):
    """All bytes, the cuts and the windows, with chunks of a few KiB."""
    pieces = (blob[at : at + step] for at in range(0, len(blob), step))
    with pytest.MonkeyPatch.context() as patch:
        small = {"MIB": KIB, "_LOOK_BACK": 4 * KIB, "_LOOK_BACK_RAW": 6 * KIB}
        for name, value in (small | patched).items():
            patch.setattr(gzip_cuts if name == "_SEEK" else gzip_source, name, value)
        with Spool(pieces, sha(blob), len(blob)) as spool:
            found, cuts = bytearray(), []
            walk = gzip_pieces(spool, kib, Buffers())
            while True:
                try:
                    data, new = next(walk)
                except StopIteration as stop:
                    return bytes(found), cuts, stop.value
                assert all(len(found) <= cut.raw < len(found) + len(data) for cut in new)
                found += data
                cuts += new


def check_chunks(blob, data, cuts, windows):
    layer = Layer("sha256:0", "sha256:0", "", "gzip", "gzip", len(blob), len(data), ())
    ends = [*[(cut.raw, cut.bit) for cut in cuts[1:]], (len(data), len(blob) * 8)]
    for cut, window, (raw_end, bit_end) in zip(cuts, windows, ends, strict=False):
        part = data[cut.raw : raw_end]
        chunk = Chunk(cut.raw, raw_end, cut.bit // 8, -(-bit_end // 8),
                      bytes.fromhex(sha(part)[7:]), cut.bit % 8)  # fmt: skip
        plain = zstandard.decompress(window) if window else b""
        packed = blob[chunk.comp_start : chunk.comp_end]
        assert inflate_chunk(layer, chunk, packed, plain) == part


@given(
    parts=st.lists(members(), min_size=1, max_size=4),
    padding=st.integers(0, 600),
    step=st.integers(500, 70_000),
    look_back=st.integers(0, 20 * KIB),
    look_back_raw=st.integers(0, 90 * KIB),
    kib=st.sampled_from([4, 8, 64]),
    write=st.integers(100, 70_000),
)
@settings(max_examples=60, deadline=None)
def test_any_gzip_is_cut_at_places_that_do_not_depend_on_how(
    parts, padding, step, look_back, look_back_raw, kib, write
):
    data = b"".join(raw for raw, _ in parts)
    blob = b"".join(packed for _, packed in parts) + bytes(padding)
    found, cuts, windows = decoded(blob, kib=kib)
    assert found == data
    assert [cut.raw for cut in cuts] == sorted({cut.raw for cut in cuts})
    assert len(windows) >= len(cuts)
    check_chunks(blob, data, cuts, windows)
    otherwise = {"_LOOK_BACK": look_back, "_LOOK_BACK_RAW": look_back_raw, "_WRITE": write}
    assert decoded(blob, step, kib, **otherwise, _SEEK=777) == (data, cuts, windows)
    assert decoded(blob, kib=kib, gzip_inflater=GzipInflater) == (data, cuts, windows)


def test_a_search_begins_at_the_first_place_that_was_remembered(monkeypatch):
    """Both limits come close here: the later place has no block behind it, the earlier one has."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31, 5, zlib.Z_HUFFMAN_ONLY)
    data = bytes(random.Random(1).choices(range(76), k=4_000_000))
    blob = packer.compress(data) + packer.flush()
    anew, known = [], gzip_cuts.Cutter._known

    def searched(self, arrival):
        place = known(self, arrival)
        anew.append(place is arrival.start)
        return place

    monkeypatch.setattr(gzip_cuts.Cutter, "_known", searched)
    _, cuts, _ = decoded(blob, kib=256, _LOOK_BACK=16 * KIB, _LOOK_BACK_RAW=24 * KIB)
    assert len(cuts) > 10
    assert not any(anew), "a chunk was decoded again from its start"


@given(
    part=members(),
    at=st.floats(0, 1),
    junk=st.binary(min_size=1, max_size=50),
    cut=st.booleans(),
    make=st.sampled_from([gzip_source.gzip_inflater, GzipInflater]),
)
@settings(max_examples=150, deadline=None)
def test_damage_is_told_or_does_not_matter(part, at, junk, cut, make):
    _, blob = part
    place = int(at * len(blob))
    damaged = blob[:place] + junk + (b"" if cut else blob[place + len(junk) :])
    try:
        found, cuts, windows = decoded(damaged, gzip_inflater=make)
    except LayerFormatError:
        return
    assert found == gzip.decompress(damaged)
    check_chunks(damaged, found, cuts, windows)


def test_what_is_no_gzip():
    for blob in (b"\x1f\x8b\x08", b"\x1f\x8b\x08\xe0" + bytes(100), b"PK\x03\x04" + bytes(100)):
        with pytest.raises(LayerFormatError):
            decoded(blob)
    blob = gzip.compress(b"something")
    for more in (b"\0\0x", b"\x1f", b"x" * 20):
        with pytest.raises(LayerFormatError):
            decoded(blob + more)
    assert decoded(blob + bytes(3))[0] == b"something"
