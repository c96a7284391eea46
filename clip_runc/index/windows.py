"""The bytes before a deflate block that decoding from it needs: few of 32 KiB.

A chunk can refer to its window only in its first 32 KiB, and does so to a part of it.  That part is
found by inflating those 32 KiB with two windows that say of each byte where it came from; the rest
is blanked, and what is left compresses to an eighth of what the whole would.
"""

from __future__ import annotations

import sys
from itertools import compress
from typing import Any

import zstandard

from clip_runc.errors import LayerFormatError
from clip_runc.index.gzip_blocks import restart_bytes
from clip_runc.index.inflate import fastest, raw_inflater

WINDOW = 1 << 15
"""Bytes that a deflate block can refer back to."""

ENOUGH = 72 << 10
"""Compressed bytes that nearly always hold the first 32 KiB of a chunk: 15 bits a literal."""

_LEVEL = 3
# Two windows that differ in every byte, and of which a pair of bytes tells the place: a literal
# comes out of both alike.
_ONE = bytes(range(256)) * (WINDOW // 256)
_OTHER = bytes((low + 1 + high) & 255 for high in range(WINDOW // 256) for low in range(256))
_PLACES = {
    int.from_bytes(bytes(pair), sys.byteorder): place
    for place, pair in enumerate(zip(_ONE, _OTHER, strict=True))
}


def stored_window(window: bytes, bit: int, data: bytes) -> bytes:
    """What an index keeps of ``window``: what is needed of it, compressed with zstd.

    ``data`` starts with the byte of which bit ``bit`` is the block's first, and is ``ENOUGH`` long
    or goes on to the end of the blob.  ``b""`` where nothing is needed.
    Raises ``LayerFormatError`` where no block can be decoded there.
    """
    needed = sparse_window(window, bit, data) if window else b""
    if not needed:
        return b""
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(needed)


def sparse_window(window: bytes, bit: int, data: bytes) -> bytes:
    """``window`` with zeros where the first 32 KiB of output do not come from; ``b""``: all."""
    shift = WINDOW - len(window)
    one, ended = _decode(_ONE[shift:], bit, data)
    size = len(one)
    if size < WINDOW and not ended and len(data) >= ENOUGH:
        return window  # a stream made to be odd: what else it refers to is not known
    other, _ = _decode(_OTHER[shift:], bit, data)
    pairs = bytearray(2 * size)
    pairs[0::2], pairs[1::2] = one, other
    copied = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    places = set(compress(memoryview(pairs).cast("H"), copied.to_bytes(size, "little")))
    if not places:
        return b""
    kept = bytearray(len(window))
    for pair in places:
        place = _PLACES[pair] - shift
        kept[place] = window[place]
    return bytes(kept)


def _decode(window: bytes, bit: int, data: bytes) -> tuple[bytes, bool]:
    """The first 32 KiB from ``bit`` on, and whether the stream ends within."""
    inflater: Any = raw_inflater(fastest, window)
    start = restart_bytes(bit, data[0]) + data[1:] if bit else data
    try:
        output: bytes = inflater.decompress(start, WINDOW)
    except fastest.error as error:
        raise LayerFormatError(f"gzip: nothing can be decoded at a checkpoint: {error}") from None
    return output, bool(inflater.eof)
