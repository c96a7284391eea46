"""Chunks as fixed records of 80 bytes: cheap to open, easy to bound."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from clip_runc.errors import IndexFormatError
from clip_runc.index.model import Chunk

_RECORD = struct.Struct("<QIQIQIBxH32sI4x")
RECORD_SIZE = _RECORD.size
_WINDOW = range(24, 36)
"""The bytes of a record that are the window's place."""

MAX_CHUNKS = 1 << 18
"""Chunks in one index: 512 GiB of layers at 2 MiB, and 120 MB of memory."""


def pack_chunks(chunks: Iterable[Chunk]) -> bytes:
    """Records: raw start and length, compressed start and length, window place, bit, pad, hash,
    skip.
    """
    return b"".join(
        _RECORD.pack(
            chunk.raw_start,
            chunk.raw_end - chunk.raw_start,
            chunk.comp_start,
            chunk.comp_end - chunk.comp_start,
            *chunk.window,
            chunk.bit,
            chunk.pad,
            chunk.hash,
            chunk.skip,
        )
        for chunk in chunks
    )


def without_windows(table: bytes) -> bytes:
    """The same table with the places of all windows zeroed: those depend on who compressed them."""
    out = bytearray(table)
    for place in range(_WINDOW.start, _WINDOW.stop):
        out[place::RECORD_SIZE] = bytes(len(out) // RECORD_SIZE)
    return bytes(out)


def unpack_chunks(table: bytes | memoryview) -> tuple[Chunk, ...]:
    """The chunks of a table; raises ``IndexFormatError`` if it is not whole records.

    The caller checks that they tile the layer (``clip_check`` and ``clipfile``).
    """
    if len(table) % RECORD_SIZE or len(table) > RECORD_SIZE * MAX_CHUNKS:
        raise IndexFormatError(f"a chunk table of {len(table)} bytes")
    rows = _RECORD.iter_unpack(table)
    return tuple(
        Chunk(raw, raw + size, comp, comp + packed, digest, bit, (at, window), pad, skip)
        for raw, size, comp, packed, at, window, bit, pad, digest, skip in rows
    )
