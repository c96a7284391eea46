"""PAX extended headers: records, times, and the xattrs that ride in them.

POSIX.1-2001 pax; ``SCHILY.xattr.*`` of star (what image builders write) and
``LIBARCHIVE.xattr.*`` of bsdtar; sparse keys are handed on to ``sparse``.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

from clip_runc.errors import LayerFormatError

_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
_NUMBER = re.compile(rb"[+-]?[0-9]{1,20}", re.ASCII)
_TIME = re.compile(rb"([+-]?)([0-9]{1,20})(?:\.([0-9]*))?", re.ASCII)
_TEXT_KEYS = (b"path", b"linkpath", b"GNU.sparse.name")
_NS = 1_000_000_000
_INT64 = 1 << 63

XATTR_VALUE_MAX = 65535
XATTR_NAME_MAX = 255
XATTR_TOTAL_MAX = 4 * 65534
"""Bytes of xattr entries that an EROFS inode can hold: a 16-bit count of words, less the header."""

# What EROFS has a prefix for; a kernel would refuse to set any other on most filesystems.
_STORABLE = re.compile(
    rb"(?:user|trusted|security)\.[^\0]+|system\.posix_acl_(?:access|default)", re.DOTALL
)
# overlayfs obeys these: an image could redirect, hide or make opaque what it did not put there.
OVERLAY_PREFIXES = (b"trusted.overlay.", b"user.overlay.")

Xattrs = tuple[tuple[bytes, bytes], ...]


class Records(NamedTuple):
    """What an extended header says: last value by key, and GNU sparse 0.0's pairs in order."""

    values: dict[bytes, bytes]
    segments: tuple[tuple[int, int], ...] = ()


def parse(data: bytes, offset: int) -> Records:
    """Parse ``length key=value`` lines; ``offset`` is for messages.  Raises LayerFormatError."""
    values: dict[bytes, bytes] = {}
    sparse: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > at else b""
        end = at + int(digits) if digits.isdigit() else 0
        equals = data.find(b"=", space, end)
        if end > len(data) or equals < 0 or data[end - 1 : end] != b"\n":
            if not data[at:].strip(b"\0"):
                break  # some writers pad with NUL inside the declared size
            raise LayerFormatError(f"PAX header at {offset}: no record at byte {at}")
        key, value = data[space + 1 : equals], data[equals + 1 : end - 1]
        if not key or b"\0" in key or (key in _TEXT_KEYS and b"\0" in value):
            raise LayerFormatError(f"PAX header at {offset}: record {key!r} holds a NUL or no key")
        values[key] = value
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append((key, value))
        at = end
    return Records(values, _pairs(sparse, offset) if sparse else ())


def _pairs(sparse: list[tuple[bytes, bytes]], offset: int) -> tuple[tuple[int, int], ...]:
    offsets, lengths = sparse[::2], sparse[1::2]
    if (
        len(offsets) != len(lengths)
        or any(key != b"GNU.sparse.offset" for key, _ in offsets)
        or any(key != b"GNU.sparse.numbytes" for key, _ in lengths)
    ):
        raise LayerFormatError(f"PAX header at {offset}: sparse offsets and lengths do not pair up")
    return tuple(
        (integer(start, "GNU.sparse.offset", offset), integer(size, "GNU.sparse.numbytes", offset))
        for (_, start), (_, size) in zip(offsets, lengths, strict=True)
    )


def integer(text: bytes, what: str, offset: int) -> int:
    """Read a decimal integer of at most 20 digits.  Raises ``LayerFormatError``."""
    if not _NUMBER.fullmatch(text):
        raise LayerFormatError(f"PAX header at {offset}: {what} {text[:40]!r} is not a number")
    return int(text)


def time_ns(text: bytes, offset: int) -> int:
    """Read seconds since 1970 with a fraction; nanoseconds, the rest cut towards the past."""
    match = _TIME.fullmatch(text)
    if not match:
        raise LayerFormatError(f"PAX header at {offset}: mtime {text[:40]!r} is not a time")
    sign, seconds, fraction = match.groups(default=b"")
    value = int(seconds) * _NS + int(fraction[:9].ljust(9, b"0"))
    if sign == b"-":
        value = -value - bool(fraction[9:].strip(b"0"))
    return clamp_time(value)


def clamp_time(ns: int) -> int:
    """Keep a time within 64 bits of nanoseconds, the years 1677 to 2262."""
    return max(-_INT64, min(_INT64 - 1, ns))


def xattrs(values: dict[bytes, bytes], offset: int) -> Xattrs:
    """Collect the xattrs of a member, sorted by name.

    Dropped: what no EROFS inode can hold by its prefix, and what overlayfs would obey.  An empty
    value means that there is none, as in POSIX and in Go's ``archive/tar``.
    Raises ``LayerFormatError`` for values over 65535 bytes and for names over 255.
    """
    found: dict[bytes, bytes] = {}
    for key, value in values.items():
        if not value:
            continue
        if key.startswith(_LIBARCHIVE):
            name = _unquote(key[len(_LIBARCHIVE) :])
            if _SCHILY + name not in values and _kept(name):
                found[name] = _base64(value, offset)
        elif key.startswith(_SCHILY) and _kept(key[len(_SCHILY) :]):
            found[key[len(_SCHILY) :]] = value
    total = 0
    for name, value in found.items():
        if len(name) > XATTR_NAME_MAX or len(value) > XATTR_VALUE_MAX:
            raise LayerFormatError(
                f"xattr {name[:40]!r} at {offset}: a name of {len(name)} bytes, "
                f"a value of {len(value)}",
                f"Linux allows {XATTR_NAME_MAX} and {XATTR_VALUE_MAX}",
            )
        total += 8 + len(name) + len(value)
    if total > XATTR_TOTAL_MAX:
        raise LayerFormatError(f"member at {offset}: {total} bytes of xattrs", "too many to store")
    return tuple(sorted(found.items()))


def _kept(name: bytes) -> bool:
    return _STORABLE.fullmatch(name) is not None and not name.startswith(OVERLAY_PREFIXES)


def _unquote(name: bytes) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), name)


def _base64(text: bytes, offset: int) -> bytes:
    # libarchive leaves out the padding
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4))
    except binascii.Error as error:
        raise LayerFormatError(f"PAX header at {offset}: xattr is not base64: {error}") from None
