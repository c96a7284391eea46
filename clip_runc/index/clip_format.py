"""The outer format of a ``.clip`` file: header, section table, limits.

::

    0   magic, version, number of sections             16 bytes
    16  section table: name, codec, offset, length,
        raw length, SHA-256 of the stored bytes        64 bytes each
    ..  SHA-256 of all before it                       32 bytes
    ..  the sections, each directly behind the other, in the order of the table

Numbers are little endian.  Sections: ``MANI`` the manifest and ``CONF`` the image config, as
the registry has them; ``PLAT`` and ``SRCE`` the platform and the repository, UTF-8; ``LAYR`` the
layers, JSON; ``CHNK`` their chunks (``chunk_table``); ``WIND`` windows, each a zstd frame of its
own; ``EROF`` the EROFS metadata image; ``PREF`` what to fetch early, JSON.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import NamedTuple

import zstandard

from clip_runc.errors import IndexFormatError

MAGIC = b"CLIPIDX\0"
GO_MAGIC = b"\x89CLIP\r\n\x1a\n"  # github.com/beam-cloud/clip, pkg/common
VERSION = 1
RAW, ZSTD = 0, 1

_START = struct.Struct("<8sII")
_SECTION = struct.Struct("<4sI3Q32s")

MIB = 1 << 20
LIMITS = {
    # name: most bytes stored, most bytes after decompression
    b"MANI": (4 * MIB, 4 * MIB),
    b"CONF": (8 * MIB, 8 * MIB),
    b"PLAT": (256, 256),
    b"SRCE": (4096, 4096),
    b"LAYR": (2 * MIB, 2 * MIB),
    b"CHNK": (20 * MIB, 20 * MIB),
    b"WIND": (1 << 40, 1 << 40),
    b"EROF": (64 * MIB, 160 * MIB),
    b"PREF": (4 * MIB, 4 * MIB),
}
"""Every section is there exactly once, in this order; what a hostile file may make us allocate."""

TABLE_SIZE = _START.size + _SECTION.size * len(LIMITS) + 32
"""Bytes before the first section."""


class Section(NamedTuple):
    """One row of the section table."""

    name: bytes
    codec: int
    offset: int
    length: int
    raw_length: int
    sha256: bytes


def pack_table(sections: list[Section]) -> bytes:
    """Header, table and their checksum: ``TABLE_SIZE`` bytes."""
    rows = b"".join(_SECTION.pack(*section) for section in sections)
    data = _START.pack(MAGIC, VERSION, len(sections)) + rows
    return data + hashlib.sha256(data).digest()


def read_table(data: bytes, file_size: int) -> dict[bytes, Section]:
    """The sections by name, every bound checked; raises ``IndexFormatError``."""
    if data[: len(GO_MAGIC)] == GO_MAGIC:
        raise IndexFormatError(
            "a .clip file of the Go library (Beta9), which names no places to restart gzip from",
            "make one of the same image: clipctl import FILE",
        )
    if data[:8] != MAGIC:
        raise IndexFormatError("not a .clip file")
    if len(data) < TABLE_SIZE:
        raise IndexFormatError("a .clip file is cut short")
    _, version, count = _START.unpack_from(data)
    if version != VERSION:
        raise IndexFormatError(
            f"a .clip file of version {version}", f"this program reads version {VERSION}"
        )
    if count != len(LIMITS) or hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise IndexFormatError("the header of a .clip file is damaged")
    rows = _SECTION.iter_unpack(data[_START.size : -32])
    sections = [Section(*row) for row in rows]
    _check_sections(sections, file_size)
    return {section.name: section for section in sections}


def _check_sections(sections: list[Section], file_size: int) -> None:
    position = TABLE_SIZE
    for section, (name, limits) in zip(sections, LIMITS.items(), strict=True):
        what = name.decode()
        if section.name != name or section.codec not in (RAW, ZSTD):
            raise IndexFormatError(f"section {what} of a .clip file is not where it belongs")
        if section.offset != position:
            raise IndexFormatError(f"section {what} of a .clip file is misplaced")
        if section.length > limits[0] or section.raw_length > limits[1]:
            raise IndexFormatError(
                f"section {what} of a .clip file is too large: {section.length} bytes, "
                f"{section.raw_length} uncompressed"
            )
        if section.codec == RAW and section.raw_length != section.length:
            raise IndexFormatError(f"section {what} of a .clip file has two lengths")
        position += section.length
    if position != file_size:
        raise IndexFormatError(
            f"a .clip file of {file_size} bytes that should have {position}", "it was cut short?"
        )


def decode_section(section: Section, stored: bytes) -> bytes:
    """The uncompressed bytes of a section, checked; raises ``IndexFormatError``."""
    _compare(section, stored)
    if section.codec == RAW:
        return stored
    return bounded_zstd(stored, section.raw_length, f"section {section.name.decode()}")


def _compare(section: Section, stored: bytes) -> None:
    if len(stored) != section.length or hashlib.sha256(stored).digest() != section.sha256:
        raise IndexFormatError(f"section {section.name.decode()} of a .clip file is damaged")


def raw_digest(section: Section, stored: bytes) -> bytes:
    """SHA-256 of what ``decode_section`` gives, in little memory; raises ``IndexFormatError``."""
    _compare(section, stored)
    if section.codec == RAW:
        return section.sha256
    what = section.name.decode()
    digest, left = hashlib.sha256(), section.raw_length
    try:
        with zstandard.ZstdDecompressor().stream_reader(stored) as reader:
            while left >= 0 and (piece := reader.read(MIB)):
                digest.update(piece)
                left -= len(piece)
    except zstandard.ZstdError as error:
        raise IndexFormatError(f"section {what} of a .clip file: {error}") from None
    if left:
        raise IndexFormatError(f"section {what} of a .clip file has two lengths")
    return digest.digest()


def bounded_zstd(stored: bytes, size: int, what: str) -> bytes:
    """Exactly ``size`` bytes out of the one zstd frame ``stored``, no more allocated."""
    try:
        parameters = zstandard.get_frame_parameters(stored)
        if parameters.content_size != size:
            raise IndexFormatError(f"{what} of a .clip file has two lengths")
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    except zstandard.ZstdError as error:
        raise IndexFormatError(f"{what} of a .clip file: {error}") from None


Reader = Callable[[int, int], bytes]
"""``read(offset, length)``: exactly so many bytes, or ``IndexFormatError``."""
