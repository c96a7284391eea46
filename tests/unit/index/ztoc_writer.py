"""A small writer of FlatBuffers and of zTOCs, for the tests; the schema is soci's ztoc.fbs."""

from __future__ import annotations

import datetime
import hashlib
import stat
import struct
from collections.abc import Callable, Sequence

from clip_runc.index.model import Chunk, Entry, Layer
from clip_runc.index.tar import TarScanner

WINDOW = 1 << 15
KINDS = {
    stat.S_IFREG: "reg",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    0: "hardlink",
}

Field = None | bytes | str | dict[int, "Field"] | list["Field"] | tuple[str, int]
"""A string or bytes, a table by field numbers, a vector, or a number with its ``struct`` code."""


def flatbuffer(root: dict[int, Field]) -> bytes:
    """A buffer with this root table; children lie behind their parents."""
    out = bytearray(4)
    struct.pack_into("<I", out, 0, _table(out, root))
    return bytes(out)


def _table(out: bytearray, fields: dict[int, Field]) -> int:
    start = len(out)
    count = max(fields, default=-1) + 1
    size = 4 + 2 * count
    offsets, place = [0] * count, 4
    for number, value in sorted(fields.items()):
        offsets[number] = place
        place += struct.calcsize("<" + value[0]) if isinstance(value, tuple) else 4
    out += struct.pack(f"<HH{count}H", size, place, *offsets)
    at = len(out)
    out += struct.pack("<i", at - start) + bytes(place - 4)
    for number, value in fields.items():
        where = at + offsets[number]
        if isinstance(value, tuple):
            struct.pack_into("<" + value[0], out, where, value[1])
        else:
            struct.pack_into("<I", out, where, _child(out, value) - where)
    return at


def _child(out: bytearray, value: Field) -> int:
    if isinstance(value, dict):
        return _table(out, value)
    at = len(out)
    if isinstance(value, list):
        out += struct.pack("<I", len(value)) + bytes(4 * len(value))
        for number, one in enumerate(value):
            where = at + 4 + 4 * number
            struct.pack_into("<I", out, where, _child(out, one) - where)
        return at
    data = value.encode() if isinstance(value, str) else value or b""
    out += struct.pack("<I", len(data)) + data + b"\0"
    return at


def time(seconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def file_row(entry: Entry, place: int) -> dict[int, Field]:
    """A member; ``place``: where its data are or would be."""
    return {
        0: entry.path,
        1: KINDS[entry.kind],
        2: ("q", place),
        3: ("q", entry.size),
        4: entry.link,
        5: ("q", entry.mode),
        6: ("I", entry.uid),
        7: ("I", entry.gid),
        10: time(entry.mtime_ns // 10**9),
        11: ("q", entry.rdev[0]),
        12: ("q", entry.rdev[1]),
        13: [{0: b"SCHILY.xattr." + name, 1: value} for name, value in entry.xattrs],
    }


def zran(chunks: Sequence[Chunk], window: Callable[[int], bytes], *, version: int = 2) -> bytes:
    """The places where the chunks begin, as ``zinfo_to_blob`` writes them."""
    points = []
    for number, chunk in enumerate(chunks):
        after, bits = chunk.comp_start + (chunk.bit > 0), (8 - chunk.bit) % 8
        data = window(number).rjust(WINDOW, b"\0")
        points.append(struct.pack("<qqB", after, chunk.raw_start, bits) + data)
    return struct.pack("<iq", len(points), 1 << 22) + b"".join(points[version == 1 :])


def ztoc(
    stream: bytes, blob: bytes, layer: Layer, window: Callable[[int], bytes], **changes: Field
) -> bytes:
    """The zTOC of a layer that was indexed; ``changes`` to its root, by ``f<number>``."""
    scanner = TarScanner()
    scanner.feed(stream)
    rows: list[Field] = [
        file_row(entry, entry.extents[0].stream if entry.extents else 0)
        for entry in scanner.close()
    ]
    digests: list[Field] = [
        "sha256:" + hashlib.sha256(blob[chunk.comp_start : chunk.comp_end]).hexdigest()
        for chunk in layer.chunks
    ]
    plain = layer.codec == "none"
    places = (
        flatbuffer({0: ("i", 2), 1: ("q", layer.chunks[0].raw_end), 2: ("q", len(blob))})
        if plain
        else zran(layer.chunks, window)
    )
    root: dict[int, Field] = {
        0: "0.9",
        1: "test",
        2: ("q", len(blob)),
        3: ("q", len(stream)),
        4: {0: rows},
        5: {0: ("b", 2 if plain else 1), 1: ("i", len(digests) - 1), 2: digests, 3: places},
    }
    return flatbuffer(root | {int(name[1:]): value for name, value in changes.items()})
