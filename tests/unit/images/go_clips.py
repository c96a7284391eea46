"""Writes what the Go library writes, as far as an import reads it: a header and two gobs.

Written from gob's documentation (https://pkg.go.dev/encoding/gob); ``test_go_clip.py`` compares
its reader with bytes that Go's own encoder made.
"""

from __future__ import annotations

import struct

GO_HEADER = struct.Struct("<9sBqqqq12s")
STRING, BYTES, STRINGS = 6, 5, 66
STRUCT, INNER = 65, 67


def unsigned(number: int) -> bytes:
    if number < 128:
        return bytes([number])
    data = number.to_bytes(-(-number.bit_length() // 8), "big")
    return bytes([256 - len(data)]) + data


def signed(number: int) -> bytes:
    return unsigned(~number << 1 | 1 if number < 0 else number << 1)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return unsigned(len(data)) + data


def message(body: bytes) -> bytes:
    return unsigned(len(body)) + body


def common(name: str, number: int) -> bytes:
    return b"\x01" + text(name) + b"\x01" + signed(number) + b"\0"


def struct_type(number: int, name: str, fields: list[tuple[str, int]]) -> bytes:
    rows = b"".join(
        b"\x01" + text(field) + b"\x01" + signed(kind) + b"\0" for field, kind in fields
    )
    body = b"\x03\x01" + common(name, number) + b"\x01" + unsigned(len(fields)) + rows + b"\0\0"
    return message(signed(-number) + body)


def strings_type() -> bytes:
    body = b"\x02\x01" + common("", STRINGS) + b"\x01" + signed(STRING) + b"\0\0"
    return message(signed(-STRINGS) + body)


def oci_info(
    host: str, repository: str, reference: str, layers: list[str], about: dict[str, str]
) -> bytes:
    """The gob of an ``OCIStorageInfo``."""
    types = struct_type(
        STRUCT,
        "OCIStorageInfo",
        [
            ("RegistryURL", STRING),
            ("Repository", STRING),
            ("Reference", STRING),
            ("Layers", STRINGS),
            ("ImageMetadata", INNER),
        ],
    )
    types += strings_type()
    types += struct_type(INNER, "ImageMetadata", [(name, STRING) for name in about])
    inner = b"".join(b"\x01" + text(value) for value in about.values()) + b"\0"
    value = b"".join(b"\x01" + text(one) for one in (host, repository, reference))
    value += b"\x01" + unsigned(len(layers)) + b"".join(map(text, layers))
    return types + message(signed(STRUCT) + value + b"\x01" + inner + b"\0")


def wrapped(kind: str, data: bytes) -> bytes:
    """The gob of a ``StorageInfoWrapper``."""
    types = struct_type(STRUCT, "StorageInfoWrapper", [("Type", STRING), ("Data", BYTES)])
    return types + message(signed(STRUCT) + b"\x01" + text(kind) + b"\x01" + text(data) + b"\0")


def go_clip(info: bytes, *, version: int = 1, kind: bytes = b"oci", tree: bytes = b"\x03") -> bytes:
    """A whole file: header, tree, storage info."""
    start = b"\x89CLIP\r\n\x1a\n"
    place = GO_HEADER.size + len(tree)
    values = (start, version, len(tree), GO_HEADER.size, len(info), place, kind)
    return GO_HEADER.pack(*values) + tree + info
