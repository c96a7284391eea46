"""Sparse members: maps as GNU tar writes them, and what of them an index can point at.

Formats: old GNU (type ``S``) and PAX 0.0, 0.1 and 1.0, see "Storing Sparse Files" in the
GNU tar manual.  A map is a list of segments ``(offset, length)`` of a file; the stored data
are the segments one after the other.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from clip_runc.errors import LayerFormatError
from clip_runc.index import pax
from clip_runc.index.model import BLOCK, Extent
from clip_runc.index.tar_header import RECORD, number

Segment = tuple[int, int]
_MAX_SIZE = (1 << 63) - 1


def gnu_segments(area: bytes, offset: int) -> list[Segment]:
    """Decode old GNU map entries: pairs of 12-byte numbers, ended by an empty one."""
    segments = []
    for at in range(0, len(area) - 23, 24):
        if not area[at]:
            break
        segments.append(
            (
                number(area[at : at + 12], "sparse offset", offset),
                number(area[at + 12 : at + 24], "sparse length", offset),
            )
        )
    return segments


def pax_segments(records: pax.Records, offset: int) -> list[Segment] | None:
    """Give the map of PAX 0.0 or 0.1; None where there is none."""
    text = records.values.get(b"GNU.sparse.map")
    if text is not None:
        numbers = [pax.integer(part, "sparse map", offset) for part in text.split(b",") if part]
        return _paired(numbers, offset)
    if records.segments or b"GNU.sparse.numblocks" in records.values:
        return list(records.segments)
    return None


def read_map(limit: int, offset: int) -> Generator[int, bytes, tuple[list[Segment], int]]:
    """Read the map of PAX 1.0 from the start of the data: gives it and the bytes it took.

    The generator asks for bytes as ``TarScanner`` does.  Decimal numbers, a line each: the
    count of segments, then offset and length of each; padded to a record.
    """
    text = b""
    taken = 0
    wanted = 1
    lines = 0
    count = None
    while lines < wanted:
        if taken + RECORD > limit:
            raise LayerFormatError(f"member at {offset}: sparse map over {limit} bytes")
        block = yield RECORD
        taken += RECORD
        text += block
        lines += block.count(b"\n")
        if count is None and lines:
            count = pax.integer(text.partition(b"\n")[0], "sparse map", offset)
            wanted = 1 + 2 * count
            if not 0 <= count <= limit:
                raise LayerFormatError(f"member at {offset}: {count} sparse segments")
    numbers = [
        pax.integer(line, "sparse map", offset) for line in text.split(b"\n", wanted)[1:wanted]
    ]
    return _paired(numbers, offset), taken


def _paired(numbers: list[int], offset: int) -> list[Segment]:
    if len(numbers) % 2:
        raise LayerFormatError(f"member at {offset}: sparse map has an odd number of values")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def checked(segments: Sequence[Segment], size: int, stored: int, offset: int) -> list[Segment]:
    """Refuse a map that is not ascending, leaves the file, or is not what was stored."""
    end = total = 0
    kept = []
    for start, length in segments:
        if start < end or length < 0 or start + length > size:
            raise LayerFormatError(
                f"member at {offset}: sparse segment {start}+{length} overlaps, or leaves a file "
                f"of {size} bytes"
            )
        end = start + length
        total += length
        if length:
            kept.append((start, length))
    if total != stored or not 0 <= size <= _MAX_SIZE:
        raise LayerFormatError(
            f"member at {offset}: a sparse file of {size} bytes, its map has {total} bytes of "
            f"data, the archive {stored}"
        )
    return kept


class Placer:
    """Turns segments into extents on block boundaries, and keeps the bytes of the others."""

    def __init__(self, size: int, limit: int) -> None:
        self._size = size
        self._room = limit
        self._extents: list[Extent] = []
        self._blocks: dict[int, bytearray] = {}

    def place(
        self, segments: Sequence[Segment], stream: int
    ) -> Generator[int, bytes, tuple[tuple[Extent, ...], bytes]]:
        """Walk the stored data, which starts at ``stream``; gives extents and literal bytes."""
        for start, length in segments:
            whole = 0
            if start % BLOCK == 0 and stream % BLOCK == 0:
                at_end = start + length == self._size
                whole = length if at_end else length - length % BLOCK
            if whole:
                self._extents.append(Extent(start, stream, whole))
                yield -whole
            if length > whole:
                # whole literal blocks count, and an unaligned segment may touch one at either end
                self._reserve((length - whole) // BLOCK + 2, stream)
                data = yield length - whole
                self._keep(start + whole, data)
            stream += length
        return self._finish()

    def _reserve(self, blocks: int, stream: int) -> None:
        self._room -= blocks * BLOCK
        if self._room < 0:
            raise LayerFormatError(
                f"sparse data at {stream} does not lie on blocks of {BLOCK} bytes, "
                "and is too much to keep in the index"
            )

    def _keep(self, start: int, data: bytes) -> None:
        at = 0
        while at < len(data):
            index, inside = divmod(start + at, BLOCK)
            piece = data[at : at + BLOCK - inside]
            block = self._blocks.setdefault(index, bytearray(BLOCK))
            block[inside : inside + len(piece)] = piece
            at += len(piece)

    def _finish(self) -> tuple[tuple[Extent, ...], bytes]:
        runs: list[list[int]] = []  # first block, count
        for block in sorted(self._blocks):
            if runs and runs[-1][0] + runs[-1][1] == block:
                runs[-1][1] += 1
            else:
                runs.append([block, 1])
        at = 0
        for first, count in runs:
            logical = first * BLOCK
            length = min(count * BLOCK, self._size - logical)
            self._extents.append(Extent(logical, ~at, length))
            at += count * BLOCK
        literal = b"".join(bytes(self._blocks[block]) for block in sorted(self._blocks))
        return tuple(sorted(self._extents, key=lambda extent: extent.logical)), literal
