"""Offsets to chunks."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from clip_runc.index.model import ESTARGZ, ZTOC, Chunk, Layer
from clip_runc.store.geometry import Geometry


def layer(sizes):
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    chunks = tuple(
        Chunk(end - size, end, 0, 1, bytes((n,)) * 32)
        for n, (end, size) in enumerate(zip(ends, sizes, strict=True))
    )
    return Layer(
        "sha256:" + "0" * 64, "sha256:" + "1" * 64, "", "gzip", "gzip", 9, sum(sizes), chunks
    )


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=20), data=st.data())
def test_span_is_the_chunks_that_a_range_touches(sizes, data):
    geometry = Geometry(layer(sizes))
    offset = data.draw(st.integers(0, sum(sizes) - 1))
    end = data.draw(st.integers(offset + 1, sum(sizes)))
    touched = [
        n for n in range(len(sizes)) if geometry.starts[n] < end and geometry.ends[n] > offset
    ]
    assert geometry.span(offset, end) == (touched[0], touched[-1])


def test_the_digest_names_boundaries_and_hashes_but_not_the_compression():
    base = layer([10, 20, 30])
    chunks = base.chunks
    same = replace(base, chunks=tuple(replace(c, comp_end=5, bit=3) for c in chunks))
    other_hash = replace(base, chunks=(replace(chunks[0], hash=b"x" * 32), *chunks[1:]))
    other_name = replace(base, chunk_hash="blake3")
    digest = Geometry(base).digest
    assert Geometry(same).digest == digest
    assert Geometry(other_hash).digest != digest
    assert Geometry(other_name).digest != digest
    assert Geometry(layer([10, 19, 31])).digest != digest
    assert Geometry(base).file_size == 512


def test_a_chunk_holds_its_bytes_and_its_pad_of_zeros():
    data = b"payload"
    chunk = Chunk(0, 512, 0, 1, hashlib.sha256(data).digest(), pad=512 - len(data))
    base = replace(layer([512]), chunks=(chunk,), origin=ESTARGZ, toc="sha256:" + "2" * 64)
    geometry = Geometry(base)
    assert geometry.holds(0, data + bytes(chunk.pad))
    assert not geometry.holds(0, data + bytes(chunk.pad - 1) + b"x")
    assert not geometry.holds(0, b"Payload" + bytes(chunk.pad))
    unpadded = replace(base, chunks=(replace(chunk, pad=0),))
    assert Geometry(unpadded).digest != geometry.digest


def test_where_only_the_compressed_bytes_have_a_hash_nothing_on_disk_is_believed():
    data = bytes(512)
    chunk = Chunk(0, 512, 0, 1, hashlib.sha256(data).digest())
    base = replace(layer([512]), chunks=(chunk,))
    assert Geometry(base).holds(0, data)
    published = replace(base, origin=ZTOC, toc="sha256:" + "2" * 64)
    assert not Geometry(published).holds(0, data)
    assert published.diff_hex != base.diff_hex
