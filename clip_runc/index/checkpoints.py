"""Where a layer is cut into chunks, and the windows that gzip chunks start from.

rapidgzip reports every place where a deflate block starts and it could restart, some 2 MiB of
uncompressed bytes apart; ``Cutter`` chooses among them.  ``windows`` reads its exported index
(gztool's format, the only one that does not blow each window up to 32 KiB).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import zstandard

from clip_runc.errors import LayerFormatError

WINDOW = 1 << 15
"""Bytes that a deflate block can refer back to."""

MAX_RAW = 16 << 20
"""Uncompressed bytes that a chunk should not exceed: what one read may have to wait for."""

CEILING_RAW = 64 << 20
"""Uncompressed bytes that no chunk of ours exceeds; a layer that would need it is streamed."""

_WINDOW_LEVEL = 9


class Cut(NamedTuple):
    """A chunk starts at byte ``raw`` of the tar stream and at bit ``bit`` of the blob."""

    raw: int
    bit: int


class Cutter:
    """Chooses chunk boundaries among restart points, as they become known.

    A chunk ends at the first point with ``target`` compressed bytes behind it, or where the
    next point would take it beyond ``max_raw`` uncompressed ones.  A point is used only if
    the one after it is ``WINDOW`` bytes away: rapidgzip blanks the bytes of a window that are
    not needed *up to the next point*, which says enough only if that is no nearer.

    A point is decided upon when the next one is known, never earlier: when it becomes known
    depends on threads, and the same layer must give the same chunks.
    """

    def __init__(self, target: int, max_raw: int = MAX_RAW) -> None:
        self._target = target - target // 16  # points rarely fall on the target: rather below
        self._max_raw = max_raw
        self._seen = -1
        self._taken = 0
        self.cuts: list[Cut] = []

    def choose(self, points: Iterable[tuple[int, int]], total: int | None = None) -> int:
        """Decide on all points, (bit, raw), but the last; on that too if ``total`` is given.

        ``points`` are those known, old ones included; ``total`` is the size of the stream, known
        at its end.  Returns the uncompressed position up to which all cuts are known.
        """
        new = sorted(
            (bit, raw) for bit, raw in points if bit > self._seen and (total is None or raw < total)
        )
        if total is not None:
            new.append((-1, total))
        for (bit, raw), (_, following) in pairwise(new):
            self._seen = bit
            if self._wanted(raw, bit, following):
                self.cuts.append(Cut(raw, bit))
        return new[-1][1] if new else 0

    def take(self, end: int) -> list[Cut]:
        """The cuts below ``end`` that were not taken before."""
        first = self._taken
        while self._taken < len(self.cuts) and self.cuts[self._taken].raw < end:
            self._taken += 1
        return self.cuts[first : self._taken]

    def _wanted(self, raw: int, bit: int, following: int) -> bool:
        if not self.cuts:
            return True
        start = self.cuts[-1]
        if following - raw < WINDOW or raw == start.raw:
            return False
        return bit - start.bit >= self._target * 8 or following - start.raw > self._max_raw


class Fixed:
    """Cuts every ``step`` bytes of the tar stream, for what needs no restart points."""

    def __init__(self, step: int, *, plain: bool) -> None:
        self._step = step
        self._plain = plain

    def within(self, start: int, end: int) -> list[Cut]:
        """The cuts in ``[start, end)``."""
        first = -(-start // self._step) * self._step
        return [Cut(raw, raw * 8 if self._plain else 0) for raw in range(first, end, self._step)]


def windows(index: bytes, cuts: Iterable[Cut]) -> Iterator[bytes]:
    """For each cut, its window compressed with zstd (``b""`` for none).

    ``index`` is what rapidgzip exported as ``IndexFormat.GZTOOL``.  Raises
    ``LayerFormatError`` if it has no window for one of the cuts.
    """
    places = _gztool_points(index)
    compressor = zstandard.ZstdCompressor(level=_WINDOW_LEVEL, write_content_size=True)
    for cut in cuts:
        if cut.bit not in places:
            raise LayerFormatError(f"no window for the deflate block at bit {cut.bit}")
        offset, length = places[cut.bit]
        window = zlib.decompress(index[offset : offset + length]) if length else b""
        yield compressor.compress(window) if window else b""


def _gztool_points(index: bytes) -> dict[int, tuple[int, int]]:
    """(offset, length) of the deflated window in ``index``, by absolute bit offset.

    Format: gztool.c, ``serialize_index_to_file``; numbers are big endian.
    """
    if index[:16] != bytes(8) + b"gzipindx":
        raise LayerFormatError("rapidgzip's index is not in gztool's format")
    point = struct.Struct(">QQII")
    places: dict[int, tuple[int, int]] = {}
    try:
        (count,) = struct.unpack_from(">Q", index, 16)
        position = 32
        for _ in range(count):
            _, offset, bits, length = point.unpack_from(index, position)
            position += point.size
            # "bits" of the byte before "offset" belong to the block, as in zlib's zran.c
            places[offset * 8 - bits] = (position, length)
            position += length
    except struct.error:
        raise LayerFormatError("rapidgzip's index is cut short") from None
    return places
