"""One image with everything that archives and layers can do to a filesystem.

Each theme is a directory of the image and gives the members that its layers have for it; the
``n``-th lists of all themes make the ``n``-th layer.  What umoci cannot read is not here:
GNU sparse headers (``torture_files.sparse_layer`` has them, for GNU tar), global PAX headers, a
parent that is a file.  ``DIFFERENCES`` names what differs from umoci,
``docs/design/fidelity.md`` says why.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import zip_longest

from tests.integration import torture_files, torture_layering
from tests.integration.tar_bytes import (
    END,
    MTIME,
    RECORD,
    Meta,
    directory,
    file,
    hard,
    member,
    opaque,
    whiteout,
)

LAYERS = 127  # what containerd and Docker allow
MIB = 1 << 20

IMPLIED = frozenset(
    {
        b"parents/no",
        b"parents/no/entry",
        b"parents/no/entry/here",
        b"parents/dangling-target",
        b"parents/dangling-target/made",
        b"whiteouts/emptied",
        b"whiteouts/regrown",
        b"opaque/regrown",
        b"opaque/regrown/inner",
        *(b"/".join([b"names/deep", *torture_files.DEEP[:n]]) for n in range(16)),
    }
)
"""Directories that no layer has an entry for: from 1970 here, from when they were made there."""

DISTURBED = frozenset({b"both", b"names", b"parents", b"whiteouts", b"opaque"})
DISTURBED |= {b"opaque/inner-kept/inner"}
"""Directories whose entry's time umoci loses: it made an implied one in them, or took something
away for a marker further up."""

STALE = frozenset({b"whiteouts/kept-dir", b"opaque/inner-kept"})
"""Directories of a lower layer, hidden by a whiteout that stands after something below them in its
layer.  umoci keeps the lower layer's directory; here it is a new, implied one."""

DIFFERENCES = {
    # devices that overlayfs takes for whiteouts
    (b"special/0-03", "path"),
    (b"special/hidden", "path"),
    (b"special", "content"),
    # bsdtar's way to write attributes, which Go does not read
    (b"attributes/libarchive", "user.bsd"),
    # 64 bits of nanoseconds end in 2262: the last moment here, 1901 there
    (b"metadata/time-2300", "mtime"),
}
"""Path, and what differs there."""
DIFFERENCES |= {(path, "mtime") for path in IMPLIED | DISTURBED}
DIFFERENCES |= {(path, what) for path in STALE for what in ("mode", "uid", "gid", "mtime")}


THEMES = (*torture_files.THEMES, *torture_layering.THEMES)


def root_layers() -> list[bytes]:
    """The lowest layers: a root that is stated in each way, and an opaque one."""
    old = [
        directory(b"./", Meta(0o700, 9, 9)),
        directory(b"old"),
        file(b"old/file", b"hidden by the opaque root"),
        file(b"bare", b"hidden as well"),
        directory(b"both"),
        file(b"both/old", b"hidden"),
    ]
    fresh = [
        file(b"before", b"before the marker"),
        directory(b"both", Meta(0o700)),
        file(b"both/new", b"new"),
        opaque(b""),
        file(b"after", b"after the marker"),
        directory(b"/", Meta(0o755, 0, 0, MTIME + 1, {b"user.root": b"of the tree"})),
    ]
    return [b"".join([*old, END]), b"".join([*fresh, END])]


def empty_layers() -> list[bytes]:
    """No members: no bytes at all, an end marker, one that GNU tar padded."""
    return [b"", END, bytes(20 * RECORD)]


def crowd(count: int) -> Iterator[bytes]:
    """A directory of that many files; one in ten has a byte."""
    yield directory(b"crowd")
    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))
        yield b"".join(
            file(
                b"crowd/file-%d" % n, b"%d" % (n % 10) if n % 10 == 0 else b"", Meta(style="ustar")
            )
            for n in numbers
        )
    yield END


def mostly_zeros(size: int) -> Iterator[bytes]:
    """One file that is zeros but for a few words; not sparse in the archive."""
    meta = Meta(0o600, style="gnu")
    yield member(b"zeros", meta=meta, size=size)
    zeros = bytes(MIB)
    for at in range(0, size, MIB):
        piece = bytearray(zeros[: size - at]) if size - at < MIB else zeros
        if at == 0 or at // MIB % 61 == 60 or at + MIB >= size:
            piece = bytearray(piece)
            piece[-8:] = struct.pack(">Q", at)
        yield bytes(piece)
    yield bytes(-size % RECORD) + END


def layers(files: int, zeros: int) -> list[Iterable[bytes]]:
    """The streams of all 127 layers: ``files`` in the crowd, ``zeros`` bytes in the large file."""
    rows = [*(theme() for theme in THEMES), torture_layering.stack(LAYERS - 8)]
    columns = zip_longest(*rows, fillvalue=())
    mixed = [b"".join([*(one for part in column for one in part), END]) for column in columns]
    below = [*root_layers(), *empty_layers()]
    above: list[Iterable[bytes]] = [crowd(files), mostly_zeros(zeros), [END]]
    streams: list[Iterable[bytes]] = [[one] for one in (*below, *mixed)]
    streams += above
    assert len(streams) == LAYERS, len(streams)
    return streams


def formats_layers(mark: bytes) -> list[bytes]:
    """Three layers of a few MiB, to be compressed in every way.

    ``mark``, the content of ``d/mark``, keeps one image's layers from being another's.
    """
    text = b"".join(b"%d: the quick brown fox\n" % (n * n) for n in range(60_000))
    noise = bytes((n * n * 2654435761 >> 13) & 255 for n in range(1_000_000))
    marked = [directory(b"d"), file(b"d/mark", mark)]
    lower = [*marked, file(b"d/text", text), file(b"d/noise", noise), file(b"d/gone")]
    middle = [*marked, whiteout(b"d/gone"), hard(b"d/link", b"d/text"), file(b"d/small", b"small")]
    upper = [*marked, file(b"d/zeros", bytes(3 * MIB + 5)), file(b"d/text", text[::-1])]
    return [b"".join([*part, END]) for part in (lower, middle, upper)]
