"""Where a layer is cut into chunks."""

from __future__ import annotations

from typing import NamedTuple

_MOST_RAW = 8 << 20
"""Uncompressed bytes behind which every chunk ends at the next place."""

MAX_FRAME_RAW = 16 << 20
"""Uncompressed bytes of a zstd frame that are still worth a chunk; else the layer is streamed."""

CEILING_RAW = 64 << 20
"""Uncompressed bytes that no chunk of ours exceeds; a layer that would need it is streamed."""


class Cut(NamedTuple):
    """A chunk starts at byte ``raw`` of the tar stream and at bit ``bit`` of the blob."""

    raw: int
    bit: int


def gzip_target(target: int) -> int:
    """Compressed bytes behind which a gzip chunk ends: rarely at once, so rather below."""
    return target - target // 16


def raw_target(target: int) -> int:
    """Uncompressed bytes behind which a chunk ends whatever it takes compressed.

    Who reads a page waits until all of its chunk is fetched, inflated, checked and stored, and most
    of that goes by uncompressed bytes.  But each chunk more costs the index a window, some 2 kB.
    """
    return min(target + target // 4, _MOST_RAW)


def gzip_limit(start: Cut, target: int) -> Cut:
    """Where a gzip chunk should end that begins at ``start``: at the first block behind either."""
    return Cut(start.raw + raw_target(target), start.bit + gzip_target(target) * 8)


NEVER = Cut(1 << 62, 1 << 62)


class Fixed:
    """Cuts every ``step`` bytes of the tar stream, for what needs no restart points."""

    def __init__(self, step: int, *, plain: bool) -> None:
        self._step = step
        self._plain = plain

    def within(self, start: int, end: int) -> list[Cut]:
        """The cuts in ``[start, end)``."""
        first = -(-start // self._step) * self._step
        return [Cut(raw, raw * 8 if self._plain else 0) for raw in range(first, end, self._step)]
