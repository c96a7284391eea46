"""How a file's extents become EROFS chunks: the largest chunk size that expresses them.

All chunks of a file have one size, a power of two; each is a hole or one contiguous run of
blocks.  A file in one piece is one chunk, whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterator

from clip_runc.errors import LayerFormatError
from clip_runc.index.erofs_format import BLOCK, BLOCK_BITS, MAX_CHUNK_BITS
from clip_runc.index.model import Entry

Run = tuple[int, int, int]
"""Place in the file, place in the stream (negative: ``~`` place in ``literal``), bytes."""


class ChunkMap:
    """The chunks of a file: ``count`` of ``1 << bits`` bytes."""

    __slots__ = ("_runs", "bits", "count")

    def __init__(self, bits: int, count: int, runs: list[Run]) -> None:
        self.bits = bits
        self.count = count
        self._runs = runs

    def streams(self) -> Iterator[int | None]:
        """Where each chunk starts in its stream, or ``~`` where in ``literal``; None for a hole."""
        step = 1 << self.bits
        at = 0
        end = self.count * step
        for logical, stream, length in self._runs:
            for _ in range(at, logical, step):
                yield None
            for inside in range(0, length, step):
                yield stream - inside if stream < 0 else stream + inside
            at = -(-(logical + length) // step) * step
        for _ in range(at, end, step):
            yield None


def chunk_map(entry: Entry, limit: int) -> ChunkMap:
    """Choose the chunks of a regular file of at least a byte.

    Raises ``LayerFormatError`` for extents off block boundaries, out of order or beyond the
    size, and where more than ``limit`` chunks would be needed.
    """
    runs = _runs(entry)
    bits = _bits(entry, runs)
    count = -(-entry.size >> bits)
    if count > limit:
        raise LayerFormatError(
            f"{entry.path!r}: a sparse file of {entry.size} bytes needs {count} chunk indexes",
            f"{limit} are left for this image",
        )
    return ChunkMap(bits, count, runs)


def _runs(entry: Entry) -> list[Run]:
    """Check the extents and join those that touch."""
    runs: list[Run] = []
    end = 0
    for extent in entry.extents:
        logical, stream, length = extent.logical, extent.stream, extent.length
        place = ~stream if stream < 0 else stream
        stop = logical + length
        if (
            logical < end
            or length <= 0
            or stop > entry.size
            or logical % BLOCK
            or place % BLOCK
            or (stop % BLOCK and stop != entry.size)
        ):
            raise LayerFormatError(f"{entry.path!r}: {extent} cannot be expressed in blocks")
        end = stop
        if runs:
            before, begin, size = runs[-1]
            follows = begin - size if begin < 0 else begin + size
            if before + size == logical and follows == stream and (begin < 0) == (stream < 0):
                runs[-1] = before, begin, size + length
                continue
        runs.append((logical, stream, length))
    return runs


def _bits(entry: Entry, runs: list[Run]) -> int:
    """The largest chunk size on whose multiples all runs begin and end."""
    edges = 0
    for logical, _, length in runs:
        edges |= logical
        if logical + length != entry.size:
            edges |= logical + length
    bits = max(BLOCK_BITS, (entry.size - 1).bit_length())
    if edges:
        bits = min(bits, (edges & -edges).bit_length() - 1)
    return min(bits, MAX_CHUNK_BITS)
