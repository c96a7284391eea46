"""Where the table of a zstd:chunked layer is; the table itself is tested with ``toc_json``."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import DigestMismatch, LayerFormatError
from clip_runc.index import toc_json, zstd_chunked
from clip_runc.index.zstd_chunked import PREFIXES, Table
from tests.unit.index.published_layers import digest, member, published

LAYER = published("zstd:chunked", [member("a", b"data" * 200), member("b")])
PLACE = zstd_chunked.table(LAYER.annotations, len(LAYER.blob))
PACKED = LAYER.blob[PLACE.offset : PLACE.offset + PLACE.size]


def test_both_writers_annotations():
    for prefix in PREFIXES:
        said = {f"{prefix}manifest-checksum": digest(b""), f"{prefix}manifest-position": "9:5:7:1"}
        assert zstd_chunked.toc_digest(said) == digest(b"")
        assert zstd_chunked.table(said, 14) == Table(9, 5, 7, digest(b""))
    assert zstd_chunked.toc_digest({f"{PREFIXES[0]}manifest-checksum": "md5:0"}) == ""
    assert zstd_chunked.toc_digest({}) == ""


@pytest.mark.parametrize(
    "position",
    [
        "",
        "9:5:7",
        "9:5:7:1:1",
        "9:5:7:2",
        "-9:5:7:1",
        "9:5:7:1\n",
        "8:5:7:1",
        "9:6:7:1",
        "9:0:7:1",
        "9:5:99999999999:1",
        "9" * 30 + ":5:7:1",
        "٩:5:7:1",
    ],
)
def test_positions_that_are_none(position):
    with pytest.raises(LayerFormatError):
        zstd_chunked.table({f"{PREFIXES[0]}manifest-position": position}, 14)


def test_another_table_and_one_of_another_size():
    with pytest.raises(DigestMismatch):
        zstd_chunked.parse(PACKED[:-1], PLACE)
    for size in (PLACE.raw_size - 1, PLACE.raw_size + 1):
        with pytest.raises(LayerFormatError):
            zstd_chunked.parse(PACKED, PLACE._replace(raw_size=size))


@given(st.binary(max_size=200) | st.binary(max_size=200).map(zstandard.compress))
def test_tables_of_anything(data):
    place = Table(100, len(data), len(data), digest(data))
    with pytest.raises(LayerFormatError):
        zstd_chunked.parse(data, place)


def test_a_bomb_stops():
    bomb = zstandard.compress(bytes(toc_json.TEXT_MAX * 2))
    with pytest.raises(LayerFormatError, match="not of 10 bytes"):
        zstd_chunked.parse(bomb, Table(100, len(bomb), 10, digest(bomb)))
