"""One 512-byte tar header: v7, ustar, star and GNU, as Go's ``archive/tar`` reads them.

Image builders, registries' scanners and runtimes mostly stand on ``archive/tar``; where
archivers differ, its reading is taken, so that an image shows the same files here as
there.  Layout: POSIX.1-1988 ustar, and "Basic Tar Format" in the GNU tar manual.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from clip_runc.errors import LayerFormatError

RECORD = 512
ZERO_RECORD = bytes(RECORD)

REGULAR = b"0"
LEGACY = b"\0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
CONTIGUOUS = b"7"
PAX = b"x"
PAX_SOLARIS = b"X"
PAX_GLOBAL = b"g"
GNU_NAME = b"L"
GNU_LINK = b"K"
GNU_SPARSE = b"S"

HEADER_ONLY = frozenset((HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
"""Types that have no data, whatever their size field says."""

_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12s")
_USTAR = b"ustar\0"
_MAX_SIZE = (1 << 63) - 1


class Header(NamedTuple):
    """The fields of a header; names are as written, ``mtime`` in seconds."""

    type: bytes
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    major: int
    minor: int


def decode(block: bytes, offset: int) -> Header:
    """Decode a header; ``offset``, its place in the stream, is for messages.

    Raises ``LayerFormatError`` for a bad checksum or a number that is none.
    """
    (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, major, minor, prefix, end) = (
        _FIELDS.unpack(block)
    )
    _verify(block, checksum, offset)
    name = name.partition(b"\0")[0]
    if magic[:6] == _USTAR and prefix[0]:
        if end[8:] == b"tar\0":
            prefix = prefix[:131]
        name = prefix.partition(b"\0")[0] + b"/" + name
    length = number(size, "size", offset)
    owner = number(uid, "uid", offset)
    if not 0 <= length <= _MAX_SIZE:
        raise LayerFormatError(f"tar header at {offset}: size {length} is out of range")
    device = kind in (CHARACTER, BLOCK_DEVICE)
    return Header(
        kind,
        name,
        link.partition(b"\0")[0],
        number(mode, "mode", offset),
        owner,
        owner if gid == uid else number(gid, "gid", offset),
        length,
        number(mtime, "mtime", offset),
        number(major, "devmajor", offset) if device else 0,
        number(minor, "devminor", offset) if device else 0,
    )


def number(field: bytes, what: str, offset: int) -> int:
    """Read a numeric field: octal digits, or base 256 where its first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = len(field) * 8
        # bit 6 of the first byte is the sign: two's complement of all bits but the marker
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
    text = field.strip(b" \0")
    if not text:
        return 0
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            pass
    elif b"\0" in text:
        return number(text.partition(b"\0")[0], what, offset)
    raise LayerFormatError(f"tar header at {offset}: {what} {field!r} is not a number")


def _verify(block: bytes, field: bytes, offset: int) -> None:
    """Compare the sum of all bytes, the checksum's own as spaces, with the checksum."""
    declared = number(field, "checksum", offset)
    total = sum(block) - sum(field) + 256
    if declared == total:
        return
    # old archivers summed signed bytes
    signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
    if declared != signed:
        raise LayerFormatError(
            f"no tar header at offset {offset}: checksum {declared}, computed {total}",
            "the layer is damaged, or is not a tar archive",
        )
