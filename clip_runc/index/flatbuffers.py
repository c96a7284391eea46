"""Reading FlatBuffers that anybody may have written: tables, vectors, strings, every bound checked.

Offsets may point to the same bytes again and again, so what is taken out is counted against a
budget.  Source: "FlatBuffers Internals" in the FlatBuffers documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from clip_runc.errors import LayerFormatError

_U16, _U32 = struct.Struct("<H"), struct.Struct("<I")
_I32, _I64 = struct.Struct("<i"), struct.Struct("<q")


class Buffer:
    """The bytes, and how many more may be taken out of them: ``share`` times their number."""

    def __init__(self, data: bytes, share: int = 4) -> None:
        self.data = data
        self.left = share * len(data) + 1024

    def root(self) -> Table:
        """The root table.  Raises ``LayerFormatError``, as all here does."""
        return Table(self, self.read(_U32, 0))

    def read(self, kind: struct.Struct, at: int) -> int:
        """A number at a place."""
        if not 0 <= at <= len(self.data) - kind.size:
            raise LayerFormatError(f"a FlatBuffer that points to byte {at} of {len(self.data)}")
        value: int = kind.unpack_from(self.data, at)[0]
        return value

    def take(self, at: int, size: int) -> bytes:
        """``size`` bytes at a place."""
        self.left -= size + 16
        if not 0 <= at <= at + size <= len(self.data) or self.left < 0:
            raise LayerFormatError("a FlatBuffer that gives more bytes than it has")
        return self.data[at : at + size]


class Table:
    """A table; fields by their number, in the order of the schema."""

    __slots__ = ("_at", "_buffer", "_fields", "_size")

    def __init__(self, buffer: Buffer, at: int) -> None:
        self._buffer, self._at = buffer, at
        self._fields = at - buffer.read(_I32, at)
        self._size = buffer.read(_U16, self._fields)

    def _field(self, number: int) -> int:
        """Where a field is; 0 for one that is not there."""
        place = 4 + 2 * number
        if place + 2 > self._size:
            return 0
        offset = self._buffer.read(_U16, self._fields + place)
        return self._at + offset if offset else 0

    def _pointed(self, number: int) -> int:
        place = self._field(number)
        return place + self._buffer.read(_U32, place) if place else 0

    def i64(self, number: int) -> int:
        """A signed number of 64 bits; 0 where it is not there."""
        place = self._field(number)
        return self._buffer.read(_I64, place) if place else 0

    def i32(self, number: int) -> int:
        """A signed number of 32 bits."""
        place = self._field(number)
        return self._buffer.read(_I32, place) if place else 0

    def u32(self, number: int) -> int:
        """An unsigned number of 32 bits."""
        place = self._field(number)
        return self._buffer.read(_U32, place) if place else 0

    def u8(self, number: int, default: int) -> int:
        """A number of 8 bits."""
        place = self._field(number)
        return self._buffer.take(place, 1)[0] if place else default

    def blob(self, number: int) -> bytes:
        """A string, or a vector of bytes; empty where it is not there."""
        place = self._pointed(number)
        return self._blob(place) if place else b""

    def table(self, number: int) -> Table | None:
        """A table in this one."""
        place = self._pointed(number)
        return Table(self._buffer, place) if place else None

    def tables(self, number: int) -> Iterator[Table]:
        """The tables of a vector."""
        for place in self._vector(number):
            yield Table(self._buffer, place)

    def blobs(self, number: int) -> Iterator[bytes]:
        """The strings of a vector."""
        for place in self._vector(number):
            yield self._blob(place)

    def _blob(self, place: int) -> bytes:
        return self._buffer.take(place + 4, self._buffer.read(_U32, place))

    def _vector(self, number: int) -> Iterator[int]:
        start = self._pointed(number)
        count = self._buffer.read(_U32, start) if start else 0
        for place in range(start + 4, start + 4 + 4 * count, 4):
            self._buffer.take(place, 4)
            yield place + self._buffer.read(_U32, place)
