"""Go's gob: one value out of bytes that describe their own types.

Source: https://pkg.go.dev/encoding/gob ("Encoding Details").  Structs become dicts of the fields
that are not zero, which is what the format sends; interfaces, complex numbers and floats are not
read, for no file of ours has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clip_runc.errors import IndexFormatError

_BOOL, _INT, _UINT, _BYTES, _STRING = 1, 2, 3, 5, 6
_DEPTH = 32
_TYPES = 4096


@dataclass(frozen=True)
class _Type:
    """A type that the stream defines: ``kind`` is the field of gob's wireType that describes it."""

    kind: int
    fields: tuple[tuple[str, int], ...] = ()
    key: int = 0
    element: int = 0
    length: int = -1


_ARRAY, _SLICE, _STRUCT, _MAP, _GOB_ENCODER, _BINARY, _TEXT = range(7)
_OPAQUE = (_GOB_ENCODER, _BINARY, _TEXT)

# The types of type definitions themselves (encoding/gob/type.go: wireType and what is in it).
# Their ids are fixed; these are ours, out of the way of a stream's.
_COMMON, _ARRAY_TYPE, _SLICE_TYPE, _STRUCT_TYPE, _FIELD, _FIELDS, _MAP_TYPE, _OTHER, _WIRE = range(
    -9, 0
)
_BUILTIN = {
    _COMMON: _Type(_STRUCT, (("Name", _STRING), ("Id", _INT))),
    _ARRAY_TYPE: _Type(_STRUCT, (("Common", _COMMON), ("Elem", _INT), ("Len", _INT))),
    _SLICE_TYPE: _Type(_STRUCT, (("Common", _COMMON), ("Elem", _INT))),
    _FIELD: _Type(_STRUCT, (("Name", _STRING), ("Id", _INT))),
    _FIELDS: _Type(_SLICE, element=_FIELD),
    _STRUCT_TYPE: _Type(_STRUCT, (("Common", _COMMON), ("Field", _FIELDS))),
    _MAP_TYPE: _Type(_STRUCT, (("Common", _COMMON), ("Key", _INT), ("Elem", _INT))),
    _OTHER: _Type(_STRUCT, (("Common", _COMMON),)),
    _WIRE: _Type(
        _STRUCT,
        (
            ("Array", _ARRAY_TYPE),
            ("Slice", _SLICE_TYPE),
            ("Struct", _STRUCT_TYPE),
            ("Map", _MAP_TYPE),
            ("GobEncoder", _OTHER),
            ("BinaryMarshaler", _OTHER),
            ("TextMarshaler", _OTHER),
        ),
    ),
}


def decode(data: bytes) -> Any:
    """The first value in ``data``.  Raises ``IndexFormatError`` for what is no gob.

    Time and memory stay in proportion to ``data``.
    """
    try:
        return _Decoder(data).value()
    except (IndexError, UnicodeDecodeError):
        raise IndexFormatError("a gob is damaged") from None


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._types = dict(_BUILTIN)

    def value(self) -> Any:
        while True:
            end = self._count() + self._at
            if end > len(self._data):
                raise IndexFormatError("a gob is cut short")
            kind = self._signed()
            if kind < 0:
                self._define(-kind)
                if self._at != end:
                    raise IndexFormatError("a gob defines a type and something more")
                continue
            known = self._types.get(kind)
            # a value that is no struct comes as the only field of one
            if (known is None or known.kind != _STRUCT) and self._unsigned() != 0:
                raise IndexFormatError("a gob holds no single value")
            return self._read(kind, 0)

    def _define(self, name: int) -> None:
        wire = self._read(_WIRE, 0)
        if len(wire) != 1 or name in self._types or len(self._types) > _TYPES:
            raise IndexFormatError("a gob has a type that is none")
        [(word, body)] = wire.items()
        kind = [field for field, _ in _BUILTIN[_WIRE].fields].index(word)
        fields = tuple((f.get("Name", ""), f.get("Id", 0)) for f in body.get("Field", ()))
        self._types[name] = _Type(
            kind, fields, body.get("Key", 0), body.get("Elem", 0), body.get("Len", 0)
        )

    def _read(self, kind: int, depth: int) -> Any:
        if kind in (_INT, _UINT, _BOOL):
            number = self._unsigned()
            if kind == _INT:
                return ~(number >> 1) if number & 1 else number >> 1
            return bool(number) if kind == _BOOL else number
        if kind in (_BYTES, _STRING):
            data = self._take(self._count())
            return data.decode() if kind == _STRING else data
        known = self._types.get(kind)
        if known is None or depth > _DEPTH:
            raise IndexFormatError(f"a gob has a value of type {kind}, which is not read")
        if known.kind == _STRUCT:
            return self._struct(known, depth)
        if known.kind in _OPAQUE:
            return self._take(self._count())
        count = self._count()
        if known.kind == _MAP:
            return {
                _hashable(self._read(known.key, depth + 1)): self._read(known.element, depth + 1)
                for _ in range(count)
            }
        if known.kind == _ARRAY and count != known.length:
            raise IndexFormatError("a gob has an array of another length than its type")
        return [self._item(known.element, depth) for _ in range(count)]

    def _item(self, kind: int, depth: int) -> Any:
        before = self._at
        item = self._read(kind, depth + 1)
        assert self._at > before  # so that a count cannot be larger than the data
        return item

    def _struct(self, known: _Type, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        field = -1
        while delta := self._unsigned():
            field += delta
            name, kind = known.fields[field]
            found[name] = self._read(kind, depth + 1)
        return found

    def _signed(self) -> int:
        number = self._unsigned()
        return ~(number >> 1) if number & 1 else number >> 1

    def _unsigned(self) -> int:
        """A byte below 128, or the number of bytes that follow, negated, big end first."""
        first = self._data[self._at]
        self._at += 1
        if first < 0x80:
            return first
        size = 256 - first
        if size > 8:
            raise IndexFormatError("a gob has a number of more than 64 bits")
        return int.from_bytes(self._take(size), "big")

    def _count(self) -> int:
        """A length of something: each item takes a byte at least."""
        number = self._unsigned()
        if number > len(self._data) - self._at:
            raise IndexFormatError("a gob is cut short")
        return number

    def _take(self, size: int) -> bytes:
        data = self._data[self._at : self._at + size]
        if len(data) != size:
            raise IndexFormatError("a gob is cut short")
        self._at += size
        return data


def _hashable(key: Any) -> Any:
    if not isinstance(key, (str, bytes, int)):
        raise IndexFormatError("a gob has a map whose keys are no names")
    return key
