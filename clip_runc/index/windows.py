"""The bytes before a deflate block that decoding from it needs: few of 32 KiB.

A chunk can refer to its window only in its first 32 KiB, and does so to a part of it.  That part is
found by inflating those 32 KiB with two windows that say of each byte where it came from; the rest
is blanked, and what is left compresses to an eighth of what the whole would.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import zstandard

from clip_runc.errors import LayerFormatError
from clip_runc.index.gzip_blocks import restart_bytes
from clip_runc.index.inflate import fastest, raw_inflater

WINDOW = 1 << 15
"""Bytes that a deflate block can refer back to."""

ENOUGH = 72 << 10
"""Compressed bytes that nearly always hold the first 32 KiB of a chunk: 15 bits a literal."""

_MOSTLY = 24 << 10
"""Compressed bytes that most often do: what is given and not taken is copied."""

_LEVEL = 3
# Two windows.  Of the place of each byte the first has the rest by 255 and one more; the exclusive
# or of both has the quotient and one more.  Neither is ever zero; of a literal the exclusive or is.
_STEP = 255
_ONE = bytes(1 + place % _STEP for place in range(WINDOW))
_OTHER = bytes((1 + place % _STEP) ^ (1 + place // _STEP) for place in range(WINDOW))
_COPIED = bytes(1) + b"\xff" * 255
"""Translates the exclusive or to a mask."""


@functools.cache
def _places() -> list[int]:
    """A place by what both say of it, as a number of two bytes in this machine's order.

    Made when it is wanted first: who only imports this does not wait for it.
    """
    found = [0] * (1 << 16)
    for place in range(WINDOW):
        pair = bytes((_ONE[place], _ONE[place] ^ _OTHER[place]))
        found[int.from_bytes(pair, sys.byteorder)] = place
    return found


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
    start = restart_bytes(bit, data[0]) + data[1:] if bit else data
    one, ended = _decode(_ONE[shift:], start)
    size = len(one)
    if size < WINDOW and not ended and len(data) >= ENOUGH:
        return window  # a stream made to be odd: what else it refers to is not known
    other, _ = _decode(_OTHER[shift:], start)
    needed = _copied(one, other, size)
    if not needed:
        return b""
    kept, places = bytearray(len(window)), _places()
    for pair in needed:
        place = places[pair] - shift
        kept[place] = window[place]
    return bytes(kept)


def _copied(one: bytes, other: bytes, size: int) -> set[int]:
    """The pairs (see ``_places``) that came from a window.  What is no copy goes by C alone."""
    first = int.from_bytes(one, "little")
    parity = (first ^ int.from_bytes(other, "little")).to_bytes(size, "little")
    mask = int.from_bytes(parity.translate(_COPIED), "little")
    quotients = parity.translate(None, b"\0")
    pairs = bytearray(2 * len(quotients))
    pairs[0::2] = (first & mask).to_bytes(size, "little").translate(None, b"\0")
    pairs[1::2] = quotients
    return set(memoryview(pairs).cast("H"))


def _decode(window: bytes, data: bytes) -> tuple[bytes, bool]:
    """The first 32 KiB of a stream, and whether it ends within."""
    inflater: Any = raw_inflater(fastest, window)
    try:
        output: bytes = inflater.decompress(data[:_MOSTLY], WINDOW)
        if len(output) < WINDOW and not inflater.eof:
            output += inflater.decompress(data[_MOSTLY:], WINDOW - len(output))
    except fastest.error as error:
        raise LayerFormatError(f"gzip: nothing can be decoded at a checkpoint: {error}") from None
    return output, bool(inflater.eof)
