"""What indexing one layer gave, as one value and as bytes for the cache.

Indexing a layer costs a pass over it; merging layers costs nothing in comparison.  So what
was learnt of a layer is kept by its digest.  The bytes are checked by a SHA-256 over all of
them and rebuilt when it fails: they live in a directory of ours and are not for exchange.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import zstandard

from clip_runc.errors import IndexFormatError
from clip_runc.index.chunk_table import pack_chunks, unpack_chunks
from clip_runc.index.model import Entry, Extent, Layer

VERSION = 3
_MAGIC = b"CLIPLAY\0"
_HEADER = struct.Struct("<8sIIQQQ32s")
_MAX_ENTRIES_RAW = 1 << 30


@dataclass(frozen=True, slots=True)
class LayerIndex:
    """A layer, its tar entries, and the zstd-compressed windows that its chunks point into."""

    layer: Layer
    entries: tuple[Entry, ...]
    windows: bytes


def cache_name(digest: str, checkpoint_mib: int) -> str:
    """The file name of a layer in the cache: what it depends on, and no slash."""
    return f"{digest.removeprefix('sha256:')}.{checkpoint_mib}m.v{VERSION}"


def pack(index: LayerIndex, checkpoint_mib: int) -> bytes:
    """Serialise; deterministic."""
    layer = index.layer
    head = {
        "digest": layer.digest,
        "diff_id": layer.diff_id,
        "media_type": layer.media_type,
        "codec": layer.codec,
        "compression": layer.compression,
        "comp_size": layer.comp_size,
        "raw_size": layer.raw_size,
        "chunk_hash": layer.chunk_hash,
        "entries": [_entry_row(entry) for entry in index.entries],
    }
    text = zstandard.ZstdCompressor(level=3).compress(json.dumps(head).encode())
    table = pack_chunks(layer.chunks)
    body = b"".join((text, table, index.windows))
    header = (_MAGIC, VERSION, checkpoint_mib, len(text), len(table), len(index.windows))
    digest = hashlib.sha256(repr(header).encode() + body).digest()
    return _HEADER.pack(*header, digest) + body


def unpack(data: bytes, digest: str, checkpoint_mib: int) -> LayerIndex:
    """The value of ``pack``; raises ``IndexFormatError`` if it is not all there or of another."""
    if len(data) < _HEADER.size:
        raise IndexFormatError("a cached layer is cut short")
    *fields, checksum = _HEADER.unpack_from(data)
    header = tuple(fields)
    body = data[_HEADER.size :]
    if header[:3] != (_MAGIC, VERSION, checkpoint_mib):
        raise IndexFormatError("a cached layer is of another version")
    if hashlib.sha256(repr(header).encode() + body).digest() != checksum:
        raise IndexFormatError("a cached layer is damaged")
    text, table = body[: header[3]], body[header[3] : header[3] + header[4]]
    head = _head(text)
    if head.get("digest") != digest:
        raise IndexFormatError("a cached layer is another one")
    entries = tuple(_row_entry(row) for row in head.pop("entries"))
    layer = Layer(**head, chunks=unpack_chunks(table))
    return LayerIndex(layer, entries, body[header[3] + header[4] :])


def _head(text: bytes) -> dict[str, Any]:
    decompressor = zstandard.ZstdDecompressor()
    head = json.loads(decompressor.decompress(text, max_output_size=_MAX_ENTRIES_RAW))
    if not isinstance(head, dict):
        raise IndexFormatError("a cached layer has no header")
    return head


def _entry_row(entry: Entry) -> list[object]:
    return [
        _text(entry.path),
        entry.kind,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        entry.mtime_ns,
        _text(entry.link),
        entry.rdev,
        [[_text(name), _text(value)] for name, value in entry.xattrs],
        [[extent.logical, extent.stream, extent.length] for extent in entry.extents],
        _text(entry.literal),
    ]


def _row_entry(row: list[Any]) -> Entry:
    path, kind, mode, uid, gid, size, mtime_ns, link, rdev, xattrs, extents, literal = row
    return Entry(
        _bytes(path),
        kind,
        mode,
        uid,
        gid,
        size,
        mtime_ns,
        _bytes(link),
        (rdev[0], rdev[1]),
        _pairs(xattrs),
        tuple(Extent(*extent) for extent in extents),
        _bytes(literal),
    )


def _pairs(rows: Iterable[list[str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((_bytes(name), _bytes(value)) for name, value in rows)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes(value: str) -> bytes:
    return value.encode("latin-1")
