"""The table of contents of eStargz and zstd:chunked layers: JSON that lists files and chunks.

Both have it from CRFS and differ little.  It says of each piece of a file where in the blob it
can be uncompressed from, its size and its SHA-256, and nothing of tar headers.  So a layer known by
it alone has a layout of its own: the data of the files one after the other in the order of the
blob, each from a block on.

Sources: docs/estargz.md and estargz/types.go of stargz-snapshotter;
pkg/chunked/internal/minimal/compression.go of containers/storage.
"""

from __future__ import annotations

import binascii
import calendar
import datetime
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clip_runc.errors import LayerFormatError
from clip_runc.index import tar_header
from clip_runc.index.chunk_table import MAX_CHUNKS
from clip_runc.index.clip_layers import MAX_CHUNK_RAW, MAX_SIZE
from clip_runc.index.members import Members
from clip_runc.index.model import BLOCK, Chunk, Entry, Extent
from clip_runc.index.tar import KINDS
from clip_runc.index.tar_header import Header

TEXT_MAX = 64 << 20
"""Bytes of JSON that we parse: some 150,000 files, and ten times as much memory."""

JOIN_MAX = 4 << 20
"""A file of several pieces and no more bytes than this is one chunk, by the digest of the whole."""

TYPES = {
    "reg": tar_header.REGULAR,
    "dir": tar_header.DIRECTORY,
    "symlink": tar_header.SYMLINK,
    "hardlink": tar_header.HARD_LINK,
    "char": tar_header.CHARACTER,
    "block": tar_header.BLOCK_DEVICE,
    "fifo": tar_header.FIFO,
}
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:Z|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a table says of its layer; the chunks tile ``raw_size`` bytes."""

    entries: tuple[Entry, ...]
    chunks: tuple[Chunk, ...]
    raw_size: int


@dataclass(slots=True)
class _Piece:
    """``size`` bytes of a file: ``inner`` bytes into what ``[start, end)`` uncompresses to."""

    start: int
    end: int
    inner: int
    size: int
    sha256: bytes | None


@dataclass(slots=True)
class _File:
    """A file with data; ``end`` of its last piece and ``sha256`` are 0 and None where unknown.

    ``number`` among the entries; ``listed``: bytes in ``pieces``.
    """

    number: int
    size: int
    end: int
    sha256: bytes | None
    pieces: list[_Piece] = field(default_factory=list)
    listed: int = 0


def parse(text: bytes, end: int) -> Contents:
    """Read a table; ``end`` is where in the blob the tar stream ends.

    Every number in it is checked before it is used.  Raises ``LayerFormatError``.
    """
    rows = _rows(text)
    found = Members()
    files = list(_files(rows, found))
    _bound(files, end)
    return _lay_out(found.entries, files)


def _rows(text: bytes) -> list[Any]:
    if len(text) > TEXT_MAX:
        raise LayerFormatError(f"a table of contents of {len(text)} bytes; we read {TEXT_MAX}")
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        table = None
    rows = table.get("entries") if isinstance(table, dict) else None
    if not isinstance(rows, list) or table.get("version") != 1:
        raise LayerFormatError("a table of contents that is not one of version 1")
    return rows


def _files(rows: Sequence[Any], found: Members) -> Iterator[_File]:
    """The files that have data, all their pieces listed; every member goes to ``found``."""
    file: _File | None = None
    chunks = 0
    for row in rows:
        if not isinstance(row, dict):
            raise LayerFormatError("a table of contents with an entry that is none")
        if row.get("type") == "chunk":
            if file is None:
                raise LayerFormatError("a table of contents with a chunk of no file")
        else:
            if file is not None:
                yield _complete(file)
            file = _member(row, found)
        if file is not None:
            chunks += 1
            if chunks > MAX_CHUNKS:
                raise LayerFormatError(f"a table of contents with over {MAX_CHUNKS} chunks")
            file.pieces.append(_piece(row, file))
    if file is not None:
        yield _complete(file)


def _member(row: dict[str, Any], found: Members) -> _File | None:
    """Note what the entry says; the file that it begins, if it has data."""
    kind = TYPES.get(_text(row, "type"))
    if kind is None:
        raise LayerFormatError(f"a table of contents with an entry of type {row.get('type')!r:.40}")
    size = _number(row, "size") if kind == tar_header.REGULAR else 0
    values = _xattrs(row)
    if time := _text(row, "modtime"):
        values[b"mtime"] = rfc3339(time)
    header = Header(
        kind,
        _utf8(row, "name"),
        _utf8(row, "linkName"),
        _number(row, "mode"),
        _number(row, "uid"),
        _number(row, "gid"),
        size,
        0,
        _number(row, "devMajor"),
        _number(row, "devMinor"),
    )
    found.add(header, KINDS[kind], values, size)
    if not size:
        return None
    digest = _DIGEST.fullmatch(_text(row, "digest"))
    sha256 = bytes.fromhex(digest[1]) if digest else None
    return _File(len(found.entries) - 1, size, _number(row, "endOffset"), sha256)


def _piece(row: dict[str, Any], file: _File) -> _Piece:
    left = file.size - file.listed
    size = _number(row, "chunkSize") or left
    if _number(row, "chunkOffset") != file.listed or not 0 < size <= left:
        raise LayerFormatError("a table of contents whose chunks do not make up their file")
    digest = _DIGEST.fullmatch(_text(row, "chunkDigest"))
    sha256 = bytes.fromhex(digest[1]) if digest else None
    file.listed += size
    return _Piece(_number(row, "offset"), 0, _number(row, "innerOffset"), size, sha256)


def _complete(file: _File) -> _File:
    """A file all of whose pieces are known, each with a hash."""
    if file.listed != file.size:
        raise LayerFormatError("a table of contents whose chunks do not make up their file")
    if len(file.pieces) == 1 and file.pieces[0].sha256 is None:
        file.pieces[0].sha256 = file.sha256
    if any(piece.sha256 is None for piece in file.pieces):
        raise LayerFormatError("a table of contents with a chunk that has no SHA-256")
    return file


def _bound(files: Sequence[_File], end: int) -> None:
    """Say where each piece ends at the latest: where the next begins that begins elsewhere."""
    after = end
    starts = {piece.start for file in files for piece in file.pieces}
    ends = {}
    for start in sorted(starts, reverse=True):
        ends[start], after = after, start
    for file in files:
        for piece in file.pieces:
            piece.end = ends[piece.start]
        last = file.pieces[-1]
        last.end = min(last.end, file.end or last.end)
        for piece in file.pieces:
            if not piece.start < piece.end <= end or piece.inner > MAX_CHUNK_RAW:
                raise LayerFormatError("a table of contents with a chunk outside its layer")


def _lay_out(entries: Sequence[Entry], files: Sequence[_File]) -> Contents:
    """Give each file its place, in the order of the blob, and cut the whole into chunks."""
    placed = list(entries)
    chunks: list[Chunk] = []
    position = 0
    for file in sorted(files, key=lambda file: (file.pieces[0].start, file.pieces[0].inner)):
        entry = placed[file.number]
        placed[file.number] = replace(entry, extents=(Extent(0, position, file.size),))
        for piece in _joined(file):
            chunks.append(_chunk(piece, position))
            position += piece.size
        if pad := -position % BLOCK:
            chunks[-1] = replace(chunks[-1], raw_end=position + pad, pad=pad)
            position += pad
        if position > MAX_SIZE:
            raise LayerFormatError(f"a table of contents of over {MAX_SIZE} bytes")
    return Contents(tuple(placed), tuple(chunks), position)


def _joined(file: _File) -> list[_Piece]:
    """The pieces of a file, or one that is all of it."""
    pieces = file.pieces
    if len(pieces) == 1 or file.size > JOIN_MAX or file.sha256 is None:
        return pieces
    if any(piece.inner for piece in pieces) or any(
        one.end != two.start for one, two in itertools.pairwise(pieces)
    ):
        return pieces
    return [_Piece(pieces[0].start, pieces[-1].end, 0, file.size, file.sha256)]


def _chunk(piece: _Piece, position: int) -> Chunk:
    assert piece.sha256 is not None  # see _complete
    return Chunk(
        position, position + piece.size, piece.start, piece.end, piece.sha256, skip=piece.inner
    )


def _number(row: dict[str, Any], key: str) -> int:
    """A number that may be missing: 0."""
    value = row.get(key)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MAX_SIZE:
        raise LayerFormatError(f"a table of contents whose {key} is {str(value)[:40]!r}")
    return value


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise LayerFormatError(f"a table of contents whose {key} is no text")
    return value


def _utf8(row: dict[str, Any], key: str) -> bytes:
    """A name.  JSON has no others than UTF-8: who wrote it put U+FFFD for the bytes of others."""
    text = _text(row, key)
    if "\ufffd" in text or "\0" in text:
        raise LayerFormatError(
            f"a table of contents with the name {text[:60]!r}, which is not whole"
        )
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise LayerFormatError("a table of contents with a name that is no text") from None


def _xattrs(row: dict[str, Any]) -> dict[bytes, bytes]:
    """As records of an extended header."""
    xattrs = row.get("xattrs")
    if xattrs is None:
        return {}
    if not isinstance(xattrs, dict):
        raise LayerFormatError("a table of contents whose xattrs are none")
    try:
        return {
            b"SCHILY.xattr." + name.encode(): binascii.a2b_base64(value, strict_mode=True)
            for name, value in xattrs.items()
        }
    except (ValueError, TypeError):
        raise LayerFormatError("a table of contents with an xattr that is not base64") from None


def rfc3339(text: str) -> bytes:
    """A time of RFC 3339 as seconds since 1970 with a fraction.  Raises ``LayerFormatError``."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise LayerFormatError(f"a table of contents with the time {text[:40]!r}")
    *numbers, fraction, sign, hours, minutes = match.groups()
    try:
        moment = datetime.datetime(*map(int, numbers))  # type: ignore[arg-type]  # six numbers
    except ValueError:
        raise LayerFormatError(f"a table of contents with the time {text[:40]!r}") from None
    seconds = calendar.timegm(moment.timetuple())
    if sign:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds -= offset if sign == "+" else -offset
    nanoseconds = int((fraction or "").ljust(9, "0"))
    if seconds < 0 and nanoseconds:  # "-1.25" is a quarter past -2
        seconds, nanoseconds = seconds + 1, 10**9 - nanoseconds
        return b"-%d.%09d" % (-seconds, nanoseconds)
    return b"%d.%09d" % (seconds, nanoseconds)
