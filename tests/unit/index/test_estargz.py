"""The footer and the member of an eStargz; the table itself is tested with ``toc_json``."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import ClipError, DigestMismatch, LayerFormatError
from clip_runc.index import estargz
from clip_runc.index.tar import TarScanner
from tests.unit.index.published_layers import digest, member, published

LAYER = published("estargz", [member("a", b"data" * 200), member("b")])
DIGEST = LAYER.annotations[estargz.ANNOTATION]
OFFSET = estargz.toc_offset(LAYER.blob[-estargz.FOOTER_SIZE :], len(LAYER.blob))
TABLE = LAYER.blob[OFFSET : -estargz.FOOTER_SIZE]


def test_the_table_is_among_the_files_as_in_the_tar_stream():
    found = estargz.parse(TABLE, OFFSET, DIGEST)
    scanner = TarScanner()
    scanner.feed(LAYER.stream)
    last = scanner.close()[-1]
    assert found.entries[-1].path == last.path == estargz.NAME
    assert found.entries[-1].size == last.size and found.entries[-1].extents[0].stream == 1024
    assert digest(LAYER.stream[last.extents[0].stream :][: last.size]) == DIGEST


def test_annotations():
    assert estargz.toc_digest(LAYER.annotations) == DIGEST
    for text in ("", "sha256:0", "sha512:" + "0" * 128, DIGEST + "\n", DIGEST.upper()):
        assert estargz.toc_digest({estargz.ANNOTATION: text}) == ""
    assert estargz.toc_digest({}) == ""


@pytest.mark.parametrize("at", [0, 3, 10, 12, 14, 20, 38, 42, 50])
def test_a_footer_with_a_wrong_byte(at):
    footer = bytearray(LAYER.blob[-estargz.FOOTER_SIZE :])
    footer[at] ^= 0x90
    with pytest.raises(LayerFormatError):
        estargz.toc_offset(bytes(footer), len(LAYER.blob))


def test_a_footer_that_points_elsewhere():
    footer = LAYER.blob[-estargz.FOOTER_SIZE :]
    for size in (0, estargz.FOOTER_SIZE, OFFSET + estargz.FOOTER_SIZE):
        with pytest.raises(LayerFormatError):
            estargz.toc_offset(footer, size)
    with pytest.raises(LayerFormatError):
        estargz.toc_offset(footer[1:], len(LAYER.blob))


def test_another_table():
    with pytest.raises(DigestMismatch):
        estargz.parse(TABLE, OFFSET, digest(b""))


def packed(*members) -> bytes:
    parts = (one.header() + one.data + bytes(-len(one.data) % 512) for one in members)
    return gzip.compress(b"".join(parts) + bytes(1024))


@pytest.mark.parametrize(
    "member_bytes",
    [
        b"",
        b"no gzip",
        TABLE[:-1],
        TABLE + b"x",
        packed(),
        packed(member("other.json", b"{}")),
        packed(member(estargz.NAME.decode())),
        packed(member(estargz.NAME.decode(), b"{}"), member("more")),
        gzip.compress(b"x" * 600),
    ],
)
def test_members_that_hold_no_table(member_bytes):
    with pytest.raises(LayerFormatError):
        estargz.parse(member_bytes, OFFSET, digest(b"{}"))


def test_a_bomb_stops(monkeypatch):
    monkeypatch.setattr(estargz, "_TAR_MAX", 1000)
    with pytest.raises(LayerFormatError, match="over 1000 bytes"):
        estargz.parse(TABLE, OFFSET, DIGEST)


@given(place=st.integers(0, len(TABLE) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_gets_through(place, bit):
    wrong = bytearray(TABLE)
    wrong[place] ^= 1 << bit
    try:
        found = estargz.parse(bytes(wrong), OFFSET, DIGEST)
    except ClipError:
        return
    assert found == estargz.parse(TABLE, OFFSET, DIGEST)  # of the gzip header, say
