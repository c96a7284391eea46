"""The layer table of a ``.clip`` file: packed, and read with every doubt."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clip_runc.errors import IndexFormatError
from clip_runc.index.chunk_hash import NAMES, SHA256
from clip_runc.index.chunk_table import MAX_CHUNKS, RECORD_SIZE, pack_chunks, unpack_chunks
from clip_runc.index.model import BLOCK, ESTARGZ, ORIGINS, ZSTD_CHUNKED, Chunk, Layer

LayerParts = tuple[Layer, bytes]
"""A layer, and its windows, zstd frames one after the other."""

MAX_LAYERS = 1024
MAX_SIZE = 1 << 46
"""64 TiB: no layer, compressed or not, is larger."""

MAX_CHUNK_RAW = 64 << 20
MAX_CHUNK_COMP = 80 << 20
"""What a chunk may make a reader hold in memory: uncompressed, and as it is fetched."""

_CODECS = {
    # codec: what "compression" may be with it
    "gzip": ("gzip",),
    "zstd": ("zstd",),
    "none": ("none",),
    "members": ("gzip",),
    "stream": ("gzip", "zstd"),
}
_TEXT_FIELDS = ("digest", "diff_id", "media_type", "codec", "compression")
_SIZE_FIELDS = ("comp_size", "raw_size")
_ORIGIN_FIELDS = ("origin", "toc")
"""Only there where a layer was not read but described by what others published."""
_HASH_FIELD = "chunk_hash"
"""Only there where it is not SHA-256."""

_TEXTS = frozenset((*_TEXT_FIELDS, *_ORIGIN_FIELDS, _HASH_FIELD))
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def pack_layers(layers: Sequence[LayerParts]) -> tuple[bytes, bytes, bytes]:
    """The sections LAYR, CHNK and WIND.  A layer that is there twice has its windows once."""
    rows: list[dict[str, object]] = []
    tables: list[bytes] = []
    windows: list[bytes] = []
    bases: dict[str, int] = {}
    position = 0
    for layer, frames in layers:
        if layer.digest not in bases:
            bases[layer.digest] = position
            windows.append(frames)
            position += len(frames)
        base = bases[layer.digest]
        tables.append(pack_chunks(_moved(chunk, base) for chunk in layer.chunks))
        row: dict[str, object] = {name: getattr(layer, name) for name in _TEXT_FIELDS}
        row |= {name: getattr(layer, name) for name in _SIZE_FIELDS}
        if layer.origin:
            row |= {name: getattr(layer, name) for name in _ORIGIN_FIELDS}
        if layer.chunk_hash != SHA256:
            row[_HASH_FIELD] = layer.chunk_hash
        rows.append(row | {"chunks": len(layer.chunks)})
    return _json(rows), b"".join(tables), b"".join(windows)


def _moved(chunk: Chunk, base: int) -> Chunk:
    offset, length = chunk.window
    if not length:
        return chunk
    return replace(chunk, window=(base + offset, length))


def unpack_layers(text: bytes, table: bytes, window_bytes: int) -> tuple[Layer, ...]:
    """The layers, every offset checked against ``window_bytes`` and the layer's sizes.

    Chunks tile ``[0, raw_size)`` without gap or overlap.  Raises ``IndexFormatError``.
    """
    rows = _load(text)
    if not isinstance(rows, list) or len(rows) > MAX_LAYERS:
        raise IndexFormatError("the layer table of a .clip file is no list of layers")
    if len(table) > MAX_CHUNKS * RECORD_SIZE:
        raise IndexFormatError(f"a .clip file with {len(table) // RECORD_SIZE} chunks")
    layers: list[Layer] = []
    position = 0
    for row in rows:
        count = _row_count(row)
        part = table[position : position + count * RECORD_SIZE]
        if len(part) != count * RECORD_SIZE:
            raise IndexFormatError("the chunk table of a .clip file is cut short")
        position += len(part)
        values = {name: value for name, value in row.items() if name != "chunks"}
        layer = Layer(**values, chunks=unpack_chunks(part))
        check_chunks(layer, window_bytes)
        layers.append(layer)
    if position != len(table):
        raise IndexFormatError("a .clip file has chunks of no layer")
    return tuple(layers)


def _row_count(row: Any) -> int:
    """The number of chunks of a row of LAYR, whose fields are checked first."""
    fields = {*_TEXT_FIELDS, *_SIZE_FIELDS, "chunks"}
    if not isinstance(row, dict) or set(row) - {_HASH_FIELD} not in (
        fields,
        {*fields, *_ORIGIN_FIELDS},
    ):
        raise IndexFormatError("a layer of a .clip file has other fields than it must")
    if not all(isinstance(row[name], str) for name in row if name in _TEXTS):
        raise IndexFormatError("a layer of a .clip file has a field that is no text")
    if "origin" in row and (row["origin"] not in ORIGINS or not _DIGEST.fullmatch(row["toc"])):
        raise IndexFormatError("a layer of a .clip file is from no table of contents that we know")
    if row.get(_HASH_FIELD, SHA256) not in NAMES:
        raise IndexFormatError(f"a layer of a .clip file has a hash {row[_HASH_FIELD][:20]!r}")
    for name in (*_SIZE_FIELDS, "chunks"):
        if type(row[name]) is not int or not 0 <= row[name] <= MAX_SIZE:
            raise IndexFormatError(f"a layer of a .clip file has {name} {str(row[name])[:40]!r}")
    if not _DIGEST.fullmatch(row["digest"]) or not _DIGEST.fullmatch(row["diff_id"]):
        raise IndexFormatError("a layer of a .clip file has a malformed digest")
    if row["compression"] not in _CODECS.get(row["codec"], ()):
        raise IndexFormatError(
            f"a layer of a .clip file has codec {row['codec'][:20]!r} "
            f"and compression {row['compression'][:20]!r}"
        )
    count: int = row["chunks"]
    return count


def check_chunks(layer: Layer, window_bytes: int) -> None:
    """Raise ``IndexFormatError`` unless the chunks tile the layer and stay in their bounds."""
    position = 0
    for number, chunk in enumerate(layer.chunks):
        if not _chunk_fits(layer, chunk, position, window_bytes):
            raise IndexFormatError(f"chunk {number} of layer {layer.digest} makes no sense")
        position = chunk.raw_end
    if position != layer.raw_size:
        raise IndexFormatError(
            f"the chunks of layer {layer.digest} end at {position}, not at {layer.raw_size}"
        )


def _chunk_fits(layer: Layer, chunk: Chunk, position: int, window_bytes: int) -> bool:
    if chunk.raw_start != position or not 0 < chunk.raw_end - position <= MAX_CHUNK_RAW:
        return False
    if chunk.window[0] + chunk.window[1] > window_bytes or chunk.window[1] > 1 << 16:
        return False
    compressed = chunk.comp_end - chunk.comp_start
    if (chunk.pad or chunk.skip) and not _laid_out(layer, chunk):
        return False
    if layer.codec == "stream":
        return not (chunk.comp_start or chunk.comp_end or chunk.bit or chunk.window[1])
    if not 0 < compressed <= MAX_CHUNK_COMP or chunk.comp_end > layer.comp_size:
        return False
    if layer.codec == "gzip":
        return chunk.bit < 8
    if layer.codec == "none" and (chunk.comp_start, compressed) != (
        position,
        chunk.raw_end - position,
    ):
        return False
    return not (chunk.bit or chunk.window[1])


def _laid_out(layer: Layer, chunk: Chunk) -> bool:
    """Whether a chunk may have a pad, or share what it is uncompressed from."""
    return (
        layer.origin in (ESTARGZ, ZSTD_CHUNKED)
        and layer.codec in ("members", "zstd")
        and chunk.pad < min(BLOCK, chunk.raw_end - chunk.raw_start)
        and chunk.skip <= MAX_CHUNK_RAW
    )


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _load(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise IndexFormatError("a .clip file holds a table that is no JSON") from None
