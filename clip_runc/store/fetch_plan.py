"""Which wanted chunks go into one request.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from clip_runc.index.model import Chunk

GAP = 4096
"""Bytes between two chunks that are fetched along rather than asked for apart: the end of one
gzip member and the header of the next, say."""


SMALL, SMALL_RAW, MANY = 512 << 10, 2 << 20, 256
"""Compressed and uncompressed bytes that travel together though they are more chunks than
``Limits`` says, and how many those may be: layers that others have cut (an eStargz) have one a
file."""


class Limits(NamedTuple):
    """What one request may hold: chunks, and compressed bytes (one chunk is always allowed)."""

    chunks: int
    bytes: int


DEMAND = Limits(1, 4 << 20)
"""A chunk that a reader waits for travels alone.  Eight readers at random offsets over a link
of 115 MB/s and 20 ms, each across two chunks of 2 MiB: with 1, 2, 4 chunks a request a read took
135–158, 153–175, 148–208 ms on the mean and 0.4, 0.5–0.7, 0.7–0.9 s at worst; over 100 ms there
was no difference beyond noise."""

AHEAD = Limits(6, 8 << 20)
"""Read-ahead travels together: over the same link in sequence with ``readahead.BOUND`` 8, one
chunk a request gave 181 MB/s uncompressed and four 210; over 100 ms 121 and 141, over 1 ms and
500 MB/s 348 and 377.  Those were chunks of 2 MiB; of what compresses well six come to as much."""


def follows(chunks: Sequence[Chunk], chunk: int) -> bool:
    """Whether the compressed bytes of ``chunk + 1`` come right after those of ``chunk``.

    They may share a byte, or be the same; an index that lies can put them anywhere.
    """
    here, after = chunks[chunk], chunks[chunk + 1]
    if (here.comp_start, here.comp_end) == (after.comp_start, after.comp_end):
        return True
    return (
        here.comp_end - 1 <= after.comp_start <= here.comp_end + GAP
        and after.comp_end > here.comp_end
    )


def widen(
    chunks: Sequence[Chunk], chunk: int, wanted: Callable[[int], bool], limits: Limits
) -> tuple[int, int]:
    """First and last chunk of a request for ``chunk``: wanted neighbours after, then before."""
    first = last = chunk

    def fits(low: int, high: int) -> bool:
        size = chunks[high].comp_end - chunks[low].comp_start
        count = high - low + 1
        raw = chunks[high].raw_end - chunks[low].raw_start
        tiny = count <= MANY and size <= SMALL and raw <= SMALL_RAW
        return size <= limits.bytes and (count <= limits.chunks or tiny)

    while (
        last + 1 < len(chunks)
        and fits(first, last + 1)
        and wanted(last + 1)
        and follows(chunks, last)
    ):
        last += 1
    while first > 0 and fits(first - 1, last) and wanted(first - 1) and follows(chunks, first - 1):
        first -= 1
    return first, last


def runs(chunks: Sequence[Chunk], first: int, last: int) -> list[tuple[int, int]]:
    """Split ``[first, last]`` where the compressed bytes are not next to each other."""
    found = []
    start = first
    for chunk in range(first, last):
        if not follows(chunks, chunk):
            found.append((start, chunk))
            start = chunk + 1
    return [*found, (start, last)]
