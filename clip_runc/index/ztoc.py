"""zTOC: what SOCI publishes beside an image, a layer's files and where its gzip can be entered.

A FlatBuffer with the members of the tar stream, places with windows as of zlib's ``zran.c``, and
the SHA-256 of the *compressed* bytes between each two.  So the layout is that of the tar stream,
but its chunks can only be checked as they come over the wire.

Source: ztoc/fbs/ztoc.fbs, ztoc/compression/gzip_zinfo.{c,h} of soci-snapshotter.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import zstandard

from clip_runc.errors import LayerFormatError
from clip_runc.index import tar_header
from clip_runc.index.chunk_table import MAX_CHUNKS
from clip_runc.index.clip_layers import MAX_SIZE
from clip_runc.index.flatbuffers import Buffer, Table
from clip_runc.index.members import Members
from clip_runc.index.model import BLOCK, Chunk, Entry, Extent
from clip_runc.index.tar import KINDS
from clip_runc.index.tar_header import Header
from clip_runc.index.toc_json import TYPES, rfc3339

SIZE_MAX = 192 << 20
"""Bytes of a zTOC that we read: some 24 GiB of layer."""

_WINDOW = 1 << 15
_WINDOW_LEVEL = 9
_HEAD = struct.Struct("<iq")
_POINT = struct.Struct(f"<qqB{_WINDOW}s")
_FIRST = 10
"""Where version 1, which leaves the first point out, takes the deflate stream to begin."""

_GZIP, _PLAIN = 1, 2
_DIGEST = re.compile(rb"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Described:
    """What a zTOC says of its layer.  ``codec``: ``"gzip"`` or ``"none"``; windows as frames."""

    entries: tuple[Entry, ...]
    chunks: tuple[Chunk, ...]
    raw_size: int
    windows: bytes
    codec: str


class _Point(NamedTuple):
    """A span begins: ``comp``, ``bit`` and ``raw`` as in ``Chunk``."""

    comp: int
    bit: int
    raw: int
    window: bytes


def parse(data: bytes, size: int) -> Described:
    """Read the zTOC of a blob of ``size`` bytes.  Raises ``LayerFormatError``."""
    root = Buffer(data).root()
    raw_size = root.i64(3)
    if root.i64(2) != size or not 0 <= raw_size <= MAX_SIZE:
        raise LayerFormatError(f"a zTOC of a layer of {root.i64(2)} bytes, not {size}")
    toc, spans = root.table(4), root.table(5)
    if toc is None or spans is None:
        raise LayerFormatError("a zTOC without files or spans")
    entries = _entries(toc, raw_size)
    hashes = [_sha256(text) for text in spans.blobs(2)]
    codec = {_GZIP: "gzip", _PLAIN: "none"}.get(spans.u8(0, _GZIP))
    if codec is None:
        raise LayerFormatError("a zTOC of an unknown compression")
    places = spans.blob(3)
    points = list(_gzip_points(places) if codec == "gzip" else _plain_points(places, size))
    if not points or len(points) != len(hashes) or len(points) > MAX_CHUNKS:
        raise LayerFormatError(f"a zTOC with {len(points)} spans and {len(hashes)} hashes")
    chunks, windows = _chunks(points, hashes, size, raw_size)
    return Described(entries, chunks, raw_size, windows, codec)


def _sha256(text: bytes) -> bytes:
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise LayerFormatError("a zTOC with a span that has no SHA-256")
    return bytes.fromhex(match[1].decode())


def _entries(toc: Table, raw_size: int) -> tuple[Entry, ...]:
    found = Members()
    for row in toc.tables(0):
        _member(row, found, raw_size)
    return tuple(found.entries)


def _member(row: Table, found: Members, raw_size: int) -> None:
    kind = TYPES.get(row.blob(1).decode("ascii", "replace"))
    if kind is None:
        raise LayerFormatError(f"a zTOC with a member of type {row.blob(1)[:40]!r}")
    name, link = row.blob(0), row.blob(4)
    if b"\0" in name or b"\0" in link:
        raise LayerFormatError("a zTOC with a name that holds a NUL")
    values = {pair.blob(0): pair.blob(1) for pair in row.tables(13)}
    if any(key.startswith(b"GNU.sparse.") for key in values):
        raise LayerFormatError("a zTOC with a sparse file, whose map it does not have")
    values[b"mtime"] = rfc3339(row.blob(10).decode("ascii", "replace"))
    place, size = row.i64(2), row.i64(3) if kind == tar_header.REGULAR else 0
    if size < 0 or place < 0 or (size and (place % BLOCK or place + size > raw_size)):
        raise LayerFormatError(f"a zTOC with a file of {size} bytes at {place} of {raw_size}")
    header = Header(
        kind, name, link, row.i64(5), row.u32(6), row.u32(7), size, 0, row.i64(11), row.i64(12)
    )
    extents = (Extent(0, place, size),) if size else ()
    found.add(header, KINDS[kind], values, size, extents)


def _gzip_points(data: bytes) -> Iterator[_Point]:
    if len(data) < _HEAD.size:
        raise LayerFormatError("a zTOC without places to enter")
    count, _ = _HEAD.unpack_from(data)
    listed, rest = divmod(len(data) - _HEAD.size, _POINT.size)
    if rest or count < 1 or count - listed not in (0, 1):
        raise LayerFormatError(f"a zTOC with {listed} places to enter, not {count}")
    if count > listed:
        yield _Point(_FIRST, 0, 0, b"")
    for after, raw, bits, window in _POINT.iter_unpack(memoryview(data)[_HEAD.size :]):
        if bits > 7:
            raise LayerFormatError("a zTOC with a place between two bits")
        # the last ``bits`` bits of the byte before ``after`` are the block's
        yield _Point(after - (bits > 0), (8 - bits) % 8, raw, window if raw else b"")


def _plain_points(data: bytes, size: int) -> Iterator[_Point]:
    step = Buffer(data).root().i64(1)
    if step < 1 or size // step > MAX_CHUNKS:
        raise LayerFormatError(f"a zTOC with spans of {step} bytes")
    for start in range(0, size, step):
        yield _Point(start, 0, start, b"")


def _chunks(
    points: Sequence[_Point], hashes: Sequence[bytes], size: int, raw_size: int
) -> tuple[tuple[Chunk, ...], bytes]:
    """Chunks that tile the stream, and their windows; whether they do is checked by the caller."""
    compressor = zstandard.ZstdCompressor(level=_WINDOW_LEVEL, write_content_size=True)
    chunks, frames, position = [], [], 0
    for number, point in enumerate(points):
        following = points[number + 1] if number + 1 < len(points) else None
        raw_end = following.raw if following else raw_size
        # the byte that two spans share is in both
        comp_end = following.comp + (following.bit > 0) if following else size
        if not (0 <= point.raw < raw_end <= MAX_SIZE and 0 <= point.comp < comp_end <= size):
            raise LayerFormatError(f"a zTOC whose span {number} makes no sense")
        frame = compressor.compress(point.window) if point.window else b""
        window = (position, len(frame)) if frame else (0, 0)
        chunks.append(
            Chunk(point.raw, raw_end, point.comp, comp_end, hashes[number], point.bit, window)
        )
        frames.append(frame)
        position += len(frame)
    return tuple(chunks), b"".join(frames)
