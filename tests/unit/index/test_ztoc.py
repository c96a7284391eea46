"""A zTOC says what indexing the layer found; and those that lie."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import DigestMismatch, LayerFormatError
from clip_runc.images.build import build_index
from clip_runc.index import ztoc
from clip_runc.index.chunk_hash import SHA256
from clip_runc.index.clip_layers import check_chunks
from clip_runc.index.clipfile import ClipFile, decode_window
from clip_runc.index.inflate import inflate_chunk
from clip_runc.index.model import ZTOC, Entry, Layer
from clip_runc.index.tar import TarScanner
from tests.unit.images import blobs
from tests.unit.index.published_layers import member
from tests.unit.index.ztoc_writer import file_row, flatbuffer, zran
from tests.unit.index.ztoc_writer import ztoc as written

FILES = [
    member("d/", kind=b"5", mode=0o1777),
    member("d/l", kind=b"2", link="f"),
    member("d/f", b"x" * 700, uid=5, mtime=1_600_000_000, xattrs={"user.a": b"1"}),
    member("d/h", kind=b"1", link="d/f"),
    member("null", kind=b"3", devmajor=1, devminor=3),
]
TAR = blobs.mixed_tar(9_000_000)[:-1024]
STREAM = (
    b"".join(one.header() + one.data + bytes(-len(one.data) % 512) for one in FILES)
    + TAR[: len(TAR) // 512 * 512].rstrip(b"\0").ljust(len(TAR), b"\0")
    + bytes(1024)
)
BLOBS = {"gzip": gzip.compress(STREAM, 6), "none": STREAM}


def indexed(codec):
    """The layer as indexing finds it, and its windows."""
    out = io.BytesIO()
    suffix = "+gzip" if codec == "gzip" else ""
    build_index(blobs.source_of((STREAM, BLOBS[codec], suffix)), out, checkpoint_mib=1)
    descriptor = os.memfd_create("clip")
    os.write(descriptor, out.getvalue())
    with ClipFile.open(descriptor) as clip:
        os.close(descriptor)
        count = range(len(clip.layers[0].chunks))
        return clip.layers[0], [clip.window(0, number) for number in count]


@pytest.fixture(scope="module", params=["gzip", "none"])
def described(request):
    layer, windows = indexed(request.param)
    blob = BLOBS[request.param]
    return layer, blob, windows, written(STREAM, blob, layer, windows.__getitem__)


@pytest.fixture(scope="module")
def zipped():
    layer, windows = indexed("gzip")
    return layer, windows


def layer_of(found, layer: Layer) -> Layer:
    zeros = "sha256:" + "0" * 64
    return replace(
        layer, codec=found.codec, compression=found.codec, raw_size=found.raw_size,
        chunks=found.chunks, origin=ZTOC, toc=zeros, chunk_hash=SHA256,
    )  # fmt: skip


def test_the_same_chunks_files_and_bytes(described):
    layer, blob, _, data = described
    found = ztoc.parse(data, len(blob))
    assert len(found.chunks) == len(layer.chunks) > 2
    assert [replace(c, hash=b"", window=(0, 0)) for c in found.chunks] == [
        replace(c, hash=b"", window=(0, 0)) for c in layer.chunks
    ]
    scanner = TarScanner()
    scanner.feed(STREAM)
    assert list(found.entries) == scanner.close()
    published = layer_of(found, layer)
    check_chunks(published, len(found.windows))
    raw = b""
    for chunk in found.chunks:
        offset, length = chunk.window
        window = decode_window(found.windows[offset : offset + length]) if length else b""
        piece = blob[chunk.comp_start : chunk.comp_end]
        raw += inflate_chunk(published, chunk, piece, window)
        with pytest.raises(DigestMismatch):
            inflate_chunk(published, chunk, piece[:-1] + bytes([piece[-1] ^ 1]), window)
    assert raw == STREAM


def test_version_one_leaves_the_first_place_out(zipped):
    layer, windows = zipped
    first = replace(layer.chunks[0], comp_start=10)
    layer = replace(layer, chunks=(first, *layer.chunks[1:]))
    places = zran(layer.chunks, windows.__getitem__, version=1)
    data = written(STREAM, BLOBS["gzip"], layer, windows.__getitem__)
    both = ztoc.parse(data, len(BLOBS["gzip"]))
    assert [point.raw for point in ztoc._gzip_points(places)] == [c.raw_start for c in both.chunks]


FILE = Entry(b"f", stat.S_IFREG, size=10)
BAD = {
    "another blob": {"f2": ("q", 1)},
    "a negative stream": {"f3": ("q", -1)},
    "a stream that ends early": {"f3": ("q", 512)},
    "no spans": {"f5": {}},
    "an unknown compression": {"f5": {0: ("b", 7), 2: [], 3: b""}},
    "hashes that are none": {"f5": {2: ["sha256:0"], 3: b""}},
    "a file off a block": {"f4": {0: [file_row(FILE, 100)]}},
    "a file behind the end": {"f4": {0: [file_row(FILE, 1 << 40)]}},
    "a file at a negative place": {"f4": {0: [file_row(FILE, -512)]}},
    "a file of negative size": {"f4": {0: [file_row(replace(FILE, size=-1), 512)]}},
    "an unknown type": {"f4": {0: [file_row(FILE, 512) | {1: "door"}]}},
    "a name with a NUL": {"f4": {0: [file_row(FILE, 512) | {0: b"a\0b"}]}},
    "a bad time": {"f4": {0: [file_row(FILE, 512) | {10: "now"}]}},
    "a sparse file": {"f4": {0: [file_row(FILE, 512) | {13: [{0: "GNU.sparse.major", 1: "1"}]}]}},
    "a device number": {"f4": {0: [file_row(FILE, 512) | {1: "char", 11: ("q", -1)}]}},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD.keys())
def test_what_is_refused(zipped, changes):
    layer, windows = zipped
    data = written(STREAM, BLOBS["gzip"], layer, windows.__getitem__, **changes)
    with pytest.raises(LayerFormatError):
        ztoc.parse(data, len(BLOBS["gzip"]))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, raw_start=c.raw_start + (1 << 40)),
        lambda c: replace(c, raw_start=-1),
        lambda c: replace(c, comp_start=1 << 40),
        lambda c: replace(c, comp_start=-7),
        lambda c: replace(c, raw_start=0),
    ],
)
def test_places_that_make_no_sense(zipped, change):
    layer, windows = zipped
    layer = replace(layer, chunks=(layer.chunks[0], change(layer.chunks[1]), *layer.chunks[2:]))
    data = written(STREAM, BLOBS["gzip"], layer, windows.__getitem__)
    with pytest.raises(LayerFormatError):
        ztoc.parse(data, len(BLOBS["gzip"]))


def test_a_zTOC_of_nothing():
    with pytest.raises(LayerFormatError, match="without files or spans"):
        ztoc.parse(flatbuffer({2: ("q", 7), 3: ("q", 7)}), 7)


@pytest.mark.parametrize("count", [3, 0, -1, 1 << 30])
@pytest.mark.parametrize("size", [0, 1, (17 + (1 << 15)) * 5])
def test_places_that_are_not_as_many_as_they_say(count, size):
    with pytest.raises(LayerFormatError):
        list(ztoc._gzip_points(struct.pack("<iq", count, 0) + bytes(size)))


def test_a_place_between_two_bits():
    with pytest.raises(LayerFormatError, match="two bits"):
        list(ztoc._gzip_points(struct.pack("<iqqqB", 1, 0, 10, 0, 8) + bytes(1 << 15)))
    with pytest.raises(LayerFormatError, match="without places"):
        list(ztoc._gzip_points(b""))


@pytest.mark.parametrize("step", [0, -1])
def test_spans_of_no_bytes(step):
    with pytest.raises(LayerFormatError):
        list(ztoc._plain_points(flatbuffer({1: ("q", step)}), 1000))
    with pytest.raises(LayerFormatError):
        list(ztoc._plain_points(flatbuffer({1: ("q", 1)}), 1 << 40))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_flipped_bytes_give_sound_chunks_or_an_error(zipped, data):
    layer, windows = zipped
    blob = BLOBS["gzip"]
    wrong = bytearray(written(STREAM, blob, layer, windows.__getitem__))
    for _ in range(data.draw(st.integers(1, 4))):
        # the windows are most of it and mean nothing here
        place = data.draw(st.integers(0, 6000) | st.integers(0, len(wrong) - 1))
        wrong[place] = data.draw(st.integers(0, 255))
    try:
        found = ztoc.parse(bytes(wrong), len(blob))
    except LayerFormatError:
        return
    for entry in found.entries:
        for extent in entry.extents:
            assert extent.stream % 512 == 0
            assert 0 < extent.stream + extent.length <= found.raw_size
    assert all(0 <= c.comp_start < c.comp_end <= len(blob) for c in found.chunks)
