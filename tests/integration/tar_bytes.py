"""Tar members by hand: what archivers of all kinds write, and what tarfile will not.

A layer is a list of members, a member bytes: its extended headers, its header, its data.
Names are bytes.  ``style`` is ``pax``, ``gnu``, ``ustar`` or ``v7``: how what does not fit the
header is written (``ustar`` splits names at a slash, ``v7`` has no prefix and no magic).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

RECORD = 512
END = bytes(2 * RECORD)
REGULAR, HARD, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
MTIME = 1_600_000_000 * 10**9
Xattrs = dict[bytes, bytes]


class Meta(NamedTuple):
    """What members have in common.  ``mtime`` in nanoseconds."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = MTIME
    xattrs: Xattrs | None = None
    style: str = "pax"


def padded(data: bytes) -> bytes:
    """``data`` to the end of its record."""
    return data + bytes(-len(data) % RECORD)


def octal(value: int, width: int) -> bytes:
    """A number in a header's field; base 256 where octal digits cannot say it."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    field = bytearray((value & (1 << width * 8) - 1).to_bytes(width, "big"))
    field[0] |= 0x80
    return bytes(field)


def header(
    name: bytes,
    kind: bytes,
    meta: Meta,
    *,
    size: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """One record; ``tail`` is what follows the device numbers in place of the prefix."""
    magic = {"gnu": b"ustar  \0", "v7": bytes(8)}.get(meta.style, b"ustar\x0000")
    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            octal(meta.mode, 8),
            octal(meta.uid, 8),
            octal(meta.gid, 8),
            octal(size, 12),
            octal(meta.mtime // 10**9, 12),
            b" " * 8,
            kind,
            link[:100].ljust(100, b"\0"),
            magic,
            bytes(64) if meta.style == "v7" else b"owner".ljust(32, b"\0") + bytes(32),
            bytes(16) if meta.style == "v7" else octal(device[0], 8) + octal(device[1], 8),
            tail or prefix.ljust(155, b"\0"),
        )
    ).ljust(RECORD, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def record(key: bytes, value: bytes) -> bytes:
    """One ``length key=value`` line of a PAX header."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return b"%d" % length + rest


def pax_header(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """An extended header for the member that follows."""
    data = b"".join(record(key, value) for key, value in records)
    return header(b"PaxHeaders/x", b"x", Meta(), size=len(data)) + padded(data)


def gnu_long(kind: bytes, name: bytes) -> bytes:
    """GNU tar's ``L`` (name) or ``K`` (link target) member."""
    data = name + b"\0"
    meta = Meta(style="gnu", mode=0, mtime=0)
    return header(b"././@LongLink", kind, meta, size=len(data)) + padded(data)


def decimal_time(ns: int) -> bytes:
    """Seconds with a fraction, as PAX has them."""
    sign, (whole, fraction) = (b"-" if ns < 0 else b""), divmod(abs(ns), 10**9)
    return sign + b"%d" % whole + (b".%09d" % fraction if fraction else b"")


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Prefix and name of a ustar header."""
    if len(name) <= 100:
        return b"", name
    at = name.rindex(b"/", 0, 156)
    assert len(name) - at - 1 <= 100, name
    return name[:at], name[at + 1 :]


def member(
    name: bytes,
    kind: bytes = REGULAR,
    data: bytes = b"",
    meta: Meta = Meta(),  # noqa: B008  # a tuple
    *,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    records: Iterable[tuple[bytes, bytes]] = (),
    size: int | None = None,
) -> bytes:
    """A member with all that it needs before it; ``size`` where the data are written elsewhere."""
    extra = list(records)
    before = b""
    prefix, short = b"", name
    if meta.style == "pax":
        if len(name) > 100:
            extra.append((b"path", name))
        if len(link) > 100:
            extra.append((b"linkpath", link))
        for key, value in ((b"uid", meta.uid), (b"gid", meta.gid)):
            if value >= 1 << 21:
                extra.append((key, b"%d" % value))
        if meta.mtime % 10**9 or meta.mtime < 0:
            extra.append((b"mtime", decimal_time(meta.mtime)))
            meta = meta._replace(mtime=max(0, meta.mtime))
        extra += [(b"SCHILY.xattr." + key, value) for key, value in (meta.xattrs or {}).items()]
        if any(key in (b"uid", b"gid") for key, _ in extra):
            meta = meta._replace(uid=meta.uid & 0o7777777, gid=meta.gid & 0o7777777)
    elif meta.style == "gnu":
        before += gnu_long(b"K", link) if len(link) > 100 else b""
        before += gnu_long(b"L", name) if len(name) > 100 else b""
    else:
        prefix, short = _split(name)
        assert meta.style != "v7" or not prefix, name
    if extra:
        before += pax_header(extra)
    length = len(data) if size is None else size
    head = header(short, kind, meta, size=length, link=link, device=device, prefix=prefix)
    return before + head + padded(data)


def file(name: bytes, data: bytes = b"", meta: Meta = Meta()) -> bytes:  # noqa: B008
    """A regular file."""
    return member(name, REGULAR, data, meta)


def directory(name: bytes, meta: Meta = Meta(0o755)) -> bytes:  # noqa: B008
    """A directory."""
    return member(name, DIRECTORY, b"", meta)


def symlink(name: bytes, target: bytes, meta: Meta = Meta(0o777)) -> bytes:  # noqa: B008
    """A symbolic link."""
    return member(name, SYMLINK, b"", meta, link=target)


def hard(name: bytes, target: bytes, style: str = "pax") -> bytes:
    """A hard link; its metadata mean nothing and are wrong on purpose."""
    return member(name, HARD, b"", Meta(0o600, 7, 7, 77 * 10**9, style=style), link=target)


def whiteout(name: bytes) -> bytes:
    """What hides ``name`` of lower layers."""
    parent, slash, base = name.rpartition(b"/")
    return member(parent + slash + b".wh." + base)


def opaque(name: bytes) -> bytes:
    """What hides all that lower layers have in the directory ``name``; empty for the root."""
    return member((name + b"/" if name else b"") + b".wh..wh..opq")


# Sparse files, each in its own words.  ``segments`` are (offset, data).

Segments = list[tuple[int, bytes]]


def sparse_gnu(name: bytes, size: int, segments: Segments) -> bytes:
    """Old GNU: type ``S``, four segments in the header, 21 in each record that follows."""
    entries = [octal(at, 12) + octal(len(data), 12) for at, data in segments]
    more = [entries[at : at + 21] for at in range(4, len(entries), 21)]
    tail = bytes(12 + 12 + 12 + 4 + 1) + b"".join(entries[:4]).ljust(96, b"\0")
    tail += bytes([bool(more)]) + octal(size, 12)
    stored = sum(len(data) for _, data in segments)
    out = header(name, b"S", Meta(style="gnu"), size=stored, tail=tail)
    for number, part in enumerate(more, 1):
        follows = bytes([number < len(more)])
        out += (b"".join(part).ljust(504, b"\0") + follows).ljust(RECORD, b"\0")
    return out + padded(b"".join(data for _, data in segments))


def sparse_00(name: bytes, size: int, segments: Segments) -> bytes:
    """PAX 0.0: offsets and lengths in turn, each a record."""
    records = [(b"GNU.sparse.size", b"%d" % size)]
    records.append((b"GNU.sparse.numblocks", b"%d" % len(segments)))
    for at, data in segments:
        records.append((b"GNU.sparse.offset", b"%d" % at))
        records.append((b"GNU.sparse.numbytes", b"%d" % len(data)))
    return member(name, data=b"".join(data for _, data in segments), records=records)


def sparse_01(name: bytes, size: int, segments: Segments) -> bytes:
    """PAX 0.1: the map in one record, the name in another."""
    numbers = [b"%d,%d" % (at, len(data)) for at, data in segments]
    records = [
        (b"GNU.sparse.size", b"%d" % size),
        (b"GNU.sparse.numblocks", b"%d" % len(segments)),
        (b"GNU.sparse.name", name),
        (b"GNU.sparse.map", b",".join(numbers)),
    ]
    stored = b"".join(data for _, data in segments)
    return member(b"GNUSparseFile.1/" + name[-40:], data=stored, records=records)


def sparse_10(name: bytes, size: int, segments: Segments) -> bytes:
    """PAX 1.0: the map before the data."""
    lines = b"%d\n" % len(segments)
    lines += b"".join(b"%d\n%d\n" % (at, len(data)) for at, data in segments)
    records = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", name),
        (b"GNU.sparse.realsize", b"%d" % size),
    ]
    stored = padded(lines) + b"".join(data for _, data in segments)
    return member(b"GNUSparseFile.1/" + name[-40:], data=stored, records=records)
