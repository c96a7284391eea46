"""A layer known by its table is the layer that its tar stream is; and tables that lie."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import DigestMismatch, IndexFormatError, LayerFormatError
from clip_runc.index import estargz, toc_json, zstd_chunked
from clip_runc.index.clip_layers import check_chunks
from clip_runc.index.inflate import inflate_chunk
from clip_runc.index.members import clean_path
from clip_runc.index.model import ESTARGZ, ZSTD_CHUNKED, Layer
from clip_runc.index.tar import TarScanner
from clip_runc.index.toc_json import Contents, rfc3339
from tests.unit.index.published_layers import FLAVOURS, Published, member, published

DATA = st.one_of(
    st.binary(max_size=3000), st.integers(1, 5).map(lambda n: b"0123456789abcdef" * 32 * n)
)
NAMES = st.text("abc/.é", min_size=1, max_size=12).filter(lambda name: clean_path(name.encode()))
XATTRS = st.dictionaries(
    st.sampled_from(["user.a", "security.capability", "trusted.overlay.opaque", "odd"]),
    st.binary(min_size=1, max_size=40).filter(lambda value: b"\0" not in value),
    max_size=2,
)


@st.composite
def members(draw):
    kinds = "REGTYPE", "DIRTYPE", "SYMTYPE", "LNKTYPE", "CHRTYPE", "FIFOTYPE"
    kind = getattr(tarfile, draw(st.sampled_from(["REGTYPE", *kinds])))
    values = {
        "mode": draw(st.integers(0, 0o7777)),
        "uid": draw(st.integers(0, 1 << 31)),
        "gid": draw(st.integers(0, 70000)),
        "mtime": draw(st.integers(0, 1 << 33)),
        "xattrs": draw(XATTRS),
    }
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        values["link"] = draw(NAMES)
    if kind == tarfile.CHRTYPE:
        values |= {"devmajor": draw(st.integers(0, 4095)), "devminor": draw(st.integers(0, 9999))}
    data = draw(DATA) if kind == tarfile.REGTYPE else b""
    return member(draw(NAMES), data, kind=kind, **values)


def contents_of(layer: Published) -> Contents:
    if estargz.toc_digest(layer.annotations):
        offset = estargz.toc_offset(layer.blob[-estargz.FOOTER_SIZE :], len(layer.blob))
        table = layer.blob[offset : -estargz.FOOTER_SIZE]
        return estargz.parse(table, offset, estargz.toc_digest(layer.annotations))
    place = zstd_chunked.table(layer.annotations, len(layer.blob))
    return zstd_chunked.parse(layer.blob[place.offset :][: place.size], place)


def layer_of(layer: Published, found: Contents) -> Layer:
    gzip = layer.media_type.endswith("gzip")
    codec = ("members", "gzip") if gzip else ("zstd", "zstd")
    origin = ESTARGZ if gzip else ZSTD_CHUNKED
    toc = "sha256:" + "0" * 64
    sizes = (len(layer.blob), found.raw_size)
    return Layer("sha256:0", "sha256:1", "", *codec, *sizes, found.chunks, origin, toc)


def raw_of(layer: Published, found: Contents) -> bytes:
    """Every chunk, fetched and verified."""
    described = layer_of(layer, found)
    check_chunks(described, 0)
    return b"".join(
        inflate_chunk(described, chunk, layer.blob[chunk.comp_start : chunk.comp_end])
        for chunk in found.chunks
    )


def files_of(entries, stream):
    """The entries, and their data instead of where they lie."""
    for entry in entries:
        data = b"".join(stream[x.stream : x.stream + x.length] for x in entry.extents)
        yield replace(entry, extents=()), data


@pytest.mark.parametrize("flavour", FLAVOURS)
@given(
    listed=st.lists(members(), max_size=8),
    chunk_size=st.sampled_from([100, 512, 1024, 4 << 20]),
    least=st.sampled_from([0, 700, 5000]),
)
@settings(max_examples=60, deadline=None)
def test_a_table_says_what_the_tar_stream_says(flavour, listed, chunk_size, least):
    least = least if flavour == "estargz" else 0
    layer = published(flavour, listed, chunk_size=chunk_size, least=least)
    scanner = TarScanner()
    scanner.feed(layer.stream)
    found = contents_of(layer)
    assert all(x.stream % 512 == 0 for entry in found.entries for x in entry.extents)
    seen = list(files_of(found.entries, raw_of(layer, found)))
    assert seen == list(files_of(scanner.close(), layer.stream))


def test_a_small_file_in_pieces_is_one_chunk_and_a_large_one_is_not():
    data = bytes(range(256)) * 40
    for flavour in FLAVOURS:
        found = contents_of(published(flavour, [member("a", data)], chunk_size=1000))
        assert len(found.chunks) == 1 + (flavour == "estargz")
    large = bytes(toc_json.JOIN_MAX + 1)
    found = contents_of(published("zstd:chunked", [member("a", large)], chunk_size=1 << 20))
    assert len(found.chunks) == 5


FILE = {"name": "a", "type": "reg", "size": 9, "offset": 10, "digest": "sha256:" + "a" * 64}
NOTHING = {"name": "d", "type": "dir"}


def table(*rows, **changes) -> bytes:
    return json.dumps({"version": 1, "entries": rows, **changes}).encode()


def test_a_file_without_a_hash_of_the_chunk_is_known_by_its_own():
    found = toc_json.parse(table(NOTHING, FILE), 100)
    (chunk,) = found.chunks
    assert (chunk.comp_start, chunk.comp_end, chunk.raw_end, chunk.pad) == (10, 100, 512, 503)
    assert chunk.hash == b"\xaa" * 32


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"version":1,"entries":[' + b"1" * 5000 + b"]}",
        table(version=2),
        table(entries={}),
        table(7),
        table(NOTHING | {"type": "reg\0"}),
        table(NOTHING | {"type": ["dir"]}),
        table(NOTHING | {"name": 1}),
        table(NOTHING | {"name": "a\ufffdb"}),
        table(NOTHING | {"name": "a\0b"}),
        table(NOTHING | {"name": "\ud800"}),
        table(NOTHING | {"name": "x" * 5000}),
        table(NOTHING | {"uid": -1}),
        table(NOTHING | {"uid": True}),
        table(NOTHING | {"uid": 1 << 32}),
        table(NOTHING | {"devMajor": 1 << 20}),
        table(NOTHING | {"xattrs": []}),
        table(NOTHING | {"xattrs": {"user.a": 5}}),
        table(NOTHING | {"xattrs": {"user.a": "?"}}),
        table(NOTHING | {"xattrs": {"user.\udfff": "AAAA"}}),
        table(NOTHING | {"modtime": "yesterday"}),
        table({"name": "l", "type": "symlink"}),
        table({"type": "chunk", "name": "a"}),
        table(NOTHING, {"type": "chunk", "name": "d", "offset": 1}),
        table(FILE | {"digest": ""}),
        table(FILE | {"digest": "sha256:0"}),
        table(FILE | {"size": 1.5}),
        table(FILE | {"size": 1 << 62}),
        table(FILE | {"offset": 100}),
        table(FILE | {"offset": 1 << 70}),
        table(FILE | {"chunkSize": 10}),
        table(FILE | {"chunkSize": 8}),
        table(FILE | {"chunkOffset": 1}),
        table(FILE | {"endOffset": 9}),
        table(FILE | {"innerOffset": 1 << 40}),
        table(FILE | {"chunkSize": 5}, {"type": "chunk", "offset": 20, "chunkOffset": 5}),
        table(FILE, {"type": "chunk", "offset": 20, "chunkOffset": 9, "chunkSize": 1}),
        table({"name": "/", "type": "reg"}),
    ],
)
def test_tables_that_are_none_or_lie(text):
    with pytest.raises(LayerFormatError):
        toc_json.parse(text, 100)


def test_a_table_of_too_many_bytes_or_chunks(monkeypatch):
    monkeypatch.setattr(toc_json, "MAX_CHUNKS", 3)
    rows = [FILE | {"name": str(n)} for n in range(4)]
    assert len(toc_json.parse(table(*rows[:3]), 100).chunks) == 3
    with pytest.raises(LayerFormatError, match="over 3 chunks"):
        toc_json.parse(table(*rows), 100)
    monkeypatch.setattr(toc_json, "TEXT_MAX", 10)
    with pytest.raises(LayerFormatError, match="bytes"):
        toc_json.parse(table(), 100)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 64) | st.text(max_size=4) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
ROWS = st.fixed_dictionaries(
    {"type": st.sampled_from(["reg", "chunk", "dir", "hardlink", "x"]), "name": NAMES},
    optional={
        "size": st.integers(0, 2000) | JSON,
        "offset": st.integers(0, 2000) | JSON,
        "endOffset": st.integers(0, 2000) | JSON,
        "innerOffset": st.integers(0, 50) | JSON,
        "chunkOffset": st.integers(0, 2000) | JSON,
        "chunkSize": st.integers(0, 2000) | JSON,
        "digest": st.just("sha256:" + "0" * 64) | JSON,
        "chunkDigest": st.just("sha256:" + "1" * 64) | JSON,
        "linkName": NAMES,
        "xattrs": JSON,
        "modtime": JSON,
    },
)


@given(rows=st.lists(ROWS | JSON, max_size=6), end=st.integers(0, 2000))
@settings(max_examples=300, deadline=None)
def test_whatever_a_table_says_chunks_stay_in_their_bounds(rows, end):
    try:
        found = toc_json.parse(json.dumps({"version": 1, "entries": rows}).encode(), end)
    except LayerFormatError:
        return
    zeros = "sha256:" + "0" * 64
    layer = Layer(zeros, zeros, "", "zstd", "zstd", end, found.raw_size, found.chunks,
                  ZSTD_CHUNKED, zeros)  # fmt: skip
    check_chunks(layer, 0)
    for entry in found.entries:
        for extent in entry.extents:
            assert extent.stream % 512 == 0
            assert extent.stream + extent.length <= found.raw_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", b"0.000000000"),
        ("2019-08-20T10:30:43Z", b"1566297043.000000000"),
        ("2019-08-20T12:30:43.25+02:00", b"1566297043.250000000"),
        ("2019-08-20T08:30:43.123456789123-02:00", b"1566297043.123456789"),
        ("1969-12-31T23:59:58.75Z", b"-1.250000000"),
        ("0001-01-01T00:00:00Z", b"-62135596800.000000000"),
    ],
)
def test_times(text, expected):
    assert rfc3339(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "2019-13-01T00:00:00Z", "2019-02-30T00:00:00Z", "2019-01-01", "0000-01-01T00:00:00Z"],
)
def test_no_times(text):
    with pytest.raises(LayerFormatError):
        rfc3339(text)


def test_a_wrong_byte_in_the_blob_is_found():
    layer = published("estargz", [member("a", b"data" * 300)])
    found = contents_of(layer)
    blob = bytearray(layer.blob)
    blob[found.chunks[0].comp_start + 20] ^= 4
    with pytest.raises((DigestMismatch, LayerFormatError)):
        raw_of(replace(layer, blob=bytes(blob)), found)


def test_layers_that_may_not_have_a_pad():
    found = toc_json.parse(table(FILE), 100)
    zeros = "sha256:" + "0" * 64
    layer = Layer(zeros, zeros, "", "zstd", "zstd", 100, found.raw_size, found.chunks)
    with pytest.raises(IndexFormatError):
        check_chunks(layer, 0)
    check_chunks(replace(layer, origin=ZSTD_CHUNKED, toc=zeros), 0)
