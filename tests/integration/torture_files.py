"""Themes of the torture image: what one file can be.

Names, modes, owners, times, attributes, devices, sparse files.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.integration.tar_bytes import (
    BLOCK,
    CHARACTER,
    END,
    FIFO,
    MTIME,
    Meta,
    Segments,
    directory,
    file,
    member,
    sparse_00,
    sparse_01,
    sparse_10,
    symlink,
)

Layers = list[list[bytes]]
SECOND = 10**9
MIB = 1 << 20
XATTR_MAX = 65535  # EROFS has 16 bits for the size of a value; Linux would take one byte more
DEEP = [b"d%03d" % n + b"x" * 200 for n in range(15)]


def names() -> Layers:
    """Long, strange and differently written names."""
    deep = b"/".join([b"names/deep", *DEEP])
    split = b"names/" + b"p" * 90 + b"/" + b"n" * 100
    members = [
        directory(b"names/"),
        file(deep + b"/" + b"f" * 255, b"deep", Meta(style="gnu")),
        file(b"names/" + b"g" * 255, b"gnu", Meta(style="gnu")),
        file(b"names/" + b"p" * 255, b"pax"),
        directory(b"names/" + b"p" * 90, Meta(0o755, style="ustar")),
        file(split, b"ustar", Meta(style="ustar")),
        file(b"names/v7", b"v7", Meta(0o640, 12, 34, style="v7")),
        member(b"names/v7-directory/", b"\0", b"", Meta(0o755, style="v7")),
        file(b"names/latin-\xe9\xff", b"raw", Meta(style="gnu")),
        file(b"names/" + b"\xfe\x80" * 60, b"raw and long, gnu", Meta(style="gnu")),
        file(b"names/" + b"\xff" * 150, b"raw and long, pax"),
        file("names/ünïcödé-🦖".encode(), b"utf-8"),
        file(b"names/new\nline\ttab\x01 \\040 'q\" *?[", b"odd"),
        file(b"names/-rf", b"dash"),
        file(b"./names/./dot/../dotted", b"./"),
        file(b"/names/absolute", b"/"),
        file(b"../../names/climbing", b".."),
        file(b"names//double///slashes", b"//"),
        directory(b"names/double"),
        directory(b"names/trailing///"),
        file(b"names/trailing-file/", b"a file in spite of its slash"),
        file(b"names/.wh", b"no whiteout"),
        file(b"names/wh.x", b"no whiteout"),
        symlink(b"names/long-link", b"t" * 4000),
        symlink(b"names/long-link-gnu", b"u/" * 2000, Meta(0o777, style="gnu")),
        symlink(b"names/raw-link", b"\xff\xfe/../\xe9"),
        symlink(b"names/spaces", b" lead and trail "),
        file(b"names/...", b"three dots"),
    ]
    return [members]


def metadata() -> Layers:
    """Modes, owners, times."""
    members = [directory(b"metadata", Meta(0o2775, 0, 50))]
    for mode in (0, 0o1, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777, 0o100644):
        members.append(file(b"metadata/mode-%o" % mode, b"x", Meta(mode)))
        members.append(directory(b"metadata/directory-%o" % mode, Meta(mode)))
    owners = (1, 65534, 65535, 65536, 2097151, 2097152, 1 << 31, (1 << 32) - 2)
    for uid, gid in zip(owners, reversed(owners), strict=True):
        for style in ("pax", "gnu"):
            name = b"metadata/owner-%d-%s" % (uid, style.encode())
            members.append(file(name, b"", Meta(0o4750, uid, gid, style=style)))
            members.append(symlink(name + b"-link", b"x", Meta(0o777, uid, gid, style=style)))
    times = (0, 1, 999_999_999, SECOND, MTIME + 123_456_789, -1, -1_500_000_000, -86400 * SECOND)
    for ns in (*times, 2**31 * SECOND - 1, 2**32 * SECOND + 1, 2**33 * SECOND - 1):
        name = b"metadata/time-%d" % ns
        members.append(file(name, b"", Meta(mtime=ns)))
        members.append(directory(name + b"-d", Meta(0o755, mtime=ns)))
        members.append(symlink(name + b"-l", b"x", Meta(0o777, mtime=ns)))
        if ns % SECOND == 0:
            members.append(file(name + b"-gnu", b"", Meta(mtime=ns, style="gnu")))
    members += [
        # more digits than a nanosecond has are cut off
        member(b"metadata/time-digits", records=[(b"mtime", b"1234567890.1234567899999")]),
        member(b"metadata/time-tenth", records=[(b"mtime", b"1234567890.1")]),
        file(b"metadata/time-2300", b"", Meta(mtime=10_413_792_000 * SECOND)),
        member(b"metadata/time-point", records=[(b"mtime", b"1234567890.")]),
        # every link is rwxrwxrwx on Linux, whatever an archive says
        symlink(b"metadata/link-mode", b"x", Meta(0o4600)),
        file(b"metadata/one-byte", b"1"),
        file(b"metadata/empty"),
        *(file(b"metadata/size-%d" % n, b"s" * n) for n in (511, 512, 513, 4095, 4096, 4097)),
    ]
    changed = [
        directory(b"metadata/directory-1777", Meta(0o711, 3, 4, MTIME + 5)),
        directory(b"metadata/", Meta(0o755, 70000, 70001, MTIME + 7)),
    ]
    return [members, changed]


def acl(*entries: tuple[int, int, int]) -> bytes:
    """``system.posix_acl_*``: tag, permissions, id; in the kernel's order."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
ACL = acl((1, 7, NOBODY), (2, 5, 1000), (4, 5, NOBODY), (16, 7, NOBODY), (32, 5, NOBODY))
CAPABILITY_2 = bytes.fromhex("0100000200200000000000000000000000000000")
CAPABILITY_3 = bytes.fromhex("0100000300200000000000000000000000000000") + struct.pack("<I", 99999)


def attributes() -> Layers:
    """Extended attributes of each namespace and size."""
    values: dict[bytes, bytes] = {
        b"user.text": b"value",
        b"user.empty": b"",
        b"user.binary": bytes(range(256)),
        b"user.n\xff": b"\xff",
        b"user." + b"n" * 250: b"a name of 255 bytes",
        b"trusted.t": b"trusted",
        b"security.capability": CAPABILITY_2,
        b"security.other": b"of no module",
    }
    big = {b"user.big": bytes(range(256)) * 255 + bytes(255)}
    assert len(big[b"user.big"]) == XATTR_MAX
    members = [
        directory(b"attributes", Meta(0o755, xattrs={b"user.directory": b"d"})),
        file(b"attributes/all", b"x", Meta(0o755, 1, 1, xattrs=values)),
        file(b"attributes/capability-3", b"", Meta(xattrs={b"security.capability": CAPABILITY_3})),
        file(
            b"attributes/setuid", b"", Meta(0o4755, xattrs={b"security.capability": CAPABILITY_2})
        ),
        file(b"attributes/acl", b"", Meta(0o775, xattrs={b"system.posix_acl_access": ACL})),
        directory(
            b"attributes/acl-directory",
            Meta(0o775, xattrs={b"system.posix_acl_access": ACL, b"system.posix_acl_default": ACL}),
        ),
        file(b"attributes/biggest", b"", Meta(xattrs=big)),
        file(
            b"attributes/many",
            b"",
            Meta(xattrs={b"user.%04d" % n: b"v" * (n % 20 + 1) for n in range(120)}),
        ),
        symlink(b"attributes/link", b"all", Meta(0o777, xattrs={b"trusted.on": b"link"})),
        member(b"attributes/pipe", FIFO, meta=Meta(xattrs={b"trusted.on": b"pipe"})),
        directory(b"attributes/overlay", Meta(0o755, xattrs={b"trusted.overlay.opaque": b"y"})),
        member(b"attributes/libarchive", records=[(b"LIBARCHIVE.xattr.user.bsd", b"eA==")]),
        directory(b"attributes/loses", Meta(0o755, xattrs={b"user.gone": b"1"})),
        file(b"attributes/loses-too", b"", Meta(xattrs={b"user.gone": b"1"})),
    ]
    changed = [directory(b"attributes/loses"), file(b"attributes/loses-too")]
    return [members, changed]


def special() -> Layers:
    """Devices and fifos, and what takes their place."""
    devices = [(1, 3), (5, 1), (259, 70_000), (4095, 0xFFFFF), (0, 1), (0, 0)]
    members = [directory(b"special")]
    for number in devices:
        name = b"special/%d-%d" % number
        for style, kind in (("gnu", CHARACTER), ("ustar", BLOCK)):
            meta = Meta(0o660, 0, 6, style=style)
            members.append(member(name + kind, kind, meta=meta, device=number))
    members.append(member(b"special/pipe", FIFO, meta=Meta(0o4620)))
    members.append(member(b"special/was-pipe", FIFO))
    members.append(member(b"special/was-device", CHARACTER, device=(1, 5)))
    members.append(file(b"special/was-file", b"data"))
    members.append(file(b"special/hidden", b"data"))
    changed = [
        file(b"special/was-pipe", b"now a file"),
        directory(b"special/was-device"),
        member(b"special/was-file", BLOCK, device=(7, 7)),
        member(b"special/hidden", CHARACTER),
    ]
    return [members, changed]


def on_blocks() -> Segments:
    """Runs as archivers write them: whole blocks, the last one up to the end."""
    runs = [(n * 65536 + 512 * n, (b"%05d" % n * 205)[:1024]) for n in range(8)]
    return [*runs, (5 * MIB - 1024, b"e" * 1024)]


def off_blocks() -> Segments:
    """Runs that begin and end anywhere.  GNU tar would take each to start a block of its own."""
    odd = [(1 << 20 | 77, b"off the blocks" * 100), ((1 << 20) + 9000, b"z")]
    return [*on_blocks()[:8], *odd, (5 * MIB - 700, b"e" * 700)]


Sparse = Callable[[bytes, int, Segments], bytes]


def sparse_members(make: Sparse, place: bytes) -> list[bytes]:
    """Sparse files of each shape in one of the formats."""
    many: Segments = [(n * 8192, b"%04d" % n * 128) for n in range(60)]
    return [
        make(place + b"/mixed", 5 * MIB, on_blocks()),
        make(place + b"/hole", 3 * MIB + 1, [(3 * MIB + 1, b"")]),
        make(place + b"/tail", 2 * MIB, [(512, b"t" * 512), (2 * MIB, b"")]),
        make(place + b"/many", 60 * 8192, [*many, (60 * 8192, b"")]),
        make(place + b"/whole", 1000, [(0, b"w" * 1000)]),
    ]


def sparse() -> Layers:
    """Sparse files in the formats that umoci reads."""
    members = [directory(b"sparse")]
    for make, name in ((sparse_00, b"0.0"), (sparse_01, b"0.1"), (sparse_10, b"1.0")):
        members.append(directory(b"sparse/" + name))
        members += sparse_members(make, b"sparse/" + name)
        members.append(make(b"sparse/" + name + b"/off", 5 * MIB, off_blocks()))
    return [members]


def sparse_layer(make: Sparse) -> bytes:
    """A layer of sparse files alone, in the format that ``make`` writes."""
    return b"".join([directory(b"gnu"), *sparse_members(make, b"gnu"), END])


THEMES = (names, metadata, attributes, special, sparse)
