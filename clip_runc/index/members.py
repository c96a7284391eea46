"""What a layer lists, one after the other: checked, normalised, counted.

Tar streams end here, and so do tables of contents that others publish: the same doubts and limits.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

from clip_runc.errors import LayerFormatError
from clip_runc.index import pax
from clip_runc.index.model import Entry, Extent
from clip_runc.index.tar_header import Header

_NAME_MAX = 255
_ID_MAX = (1 << 32) - 2  # the last one means "leave it" to chown


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may ask for, a layer.  ``LayerFormatError`` beyond."""

    entries: int = 4_000_000
    header: int = 1 << 20  # bytes of a PAX header, a GNU long name, a sparse map
    path: int = 4096  # bytes of a path or link target: PATH_MAX
    kept: int = 1 << 29  # bytes of names, link targets and xattrs together
    literal: int = 16 << 20  # bytes of sparse data off block boundaries
    stream: int = 1 << 41  # bytes altogether: 2³² blocks is what EROFS can address


DEFAULT_LIMITS = Limits()


def clean_path(name: bytes) -> bytes:
    """Normalise a member's name: as ``path.Clean("/" + name)`` in Go, less the slash.

    ``..`` cannot climb above the root.  Raises ``LayerFormatError`` for a component
    that is over 255 bytes.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part and part != b".":
            parts.append(part)
    if len(name) > _NAME_MAX and any(len(part) > _NAME_MAX for part in parts):
        raise LayerFormatError(f"the name {name[:60]!r}… has a component over {_NAME_MAX} bytes")
    return b"/".join(parts)


class Members:
    """Collects the ``entries`` of a layer in their order, within ``limits``."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.entries: list[Entry] = []
        self._limits = limits
        self._kept = 0

    def add(
        self,
        header: Header,
        kind: int,
        values: dict[bytes, bytes],
        size: int,
        extents: tuple[Extent, ...] = (),
        literal: bytes = b"",
        place: int = 0,
    ) -> None:
        """One more, of which extended headers say ``values``; ``place`` is for messages.

        Raises ``LayerFormatError``.
        """
        path = clean_path(header.name)
        link = b""
        if kind == stat.S_IFLNK:
            link = header.link
        elif not kind:
            link = clean_path(header.link)
        xattrs: pax.Xattrs = ()
        mtime_ns = header.mtime * 1_000_000_000
        if values:
            xattrs = pax.xattrs(values, place)
            if mtime := values.get(b"mtime"):
                mtime_ns = pax.time_ns(mtime, place)
        self._check(header, path, kind, link, xattrs)
        self.entries.append(
            Entry(
                path,
                kind,
                header.mode & 0o7777,
                header.uid,
                header.gid,
                size,
                pax.clamp_time(mtime_ns),
                link,
                (header.major, header.minor),
                xattrs,
                extents,
                literal,
            )
        )

    def _check(
        self, header: Header, path: bytes, kind: int, link: bytes, xattrs: pax.Xattrs
    ) -> None:
        limits = self._limits
        self._kept += len(path) + len(link) + sum(len(n) + len(v) for n, v in xattrs)
        shown = path[:200]
        if len(path) >= limits.path or len(link) >= limits.path:
            raise LayerFormatError(f"{shown!r}…: a path or link over {limits.path - 1} bytes")
        if len(self.entries) >= limits.entries or self._kept > limits.kept:
            raise LayerFormatError(
                f"more than {limits.entries} members or {limits.kept} bytes of names and xattrs"
            )
        if not (0 <= header.uid <= _ID_MAX and 0 <= header.gid <= _ID_MAX):
            raise LayerFormatError(f"{shown!r}: owner {header.uid}:{header.gid} is out of range")
        if not (0 <= header.major < 1 << 12 and 0 <= header.minor < 1 << 20):
            raise LayerFormatError(
                f"{shown!r}: device number {header.major}:{header.minor} is out of range"
            )
        if kind == stat.S_IFLNK and not link:
            raise LayerFormatError(f"{shown!r}: a symbolic link to nothing")
        if not path and kind != stat.S_IFDIR:
            raise LayerFormatError(f"a member {header.name[:200]!r} would replace the root")
