"""The ``.clip`` file: an image's index, read in place and written in one go.

``ClipFile.open`` reads what a mount needs, the header and the layer and chunk tables; the
EROFS image and the windows are read when they are asked for.  Every byte used is covered by a
checksum, but the windows': a wrong one is found by the hash of the chunk made with it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import zstandard

from clip_runc.errors import IndexFormatError
from clip_runc.index import clip_format as fmt
from clip_runc.index.chunk_table import without_windows
from clip_runc.index.clip_layers import (
    LayerParts,
    pack_layers,
    unpack_layers,
)
from clip_runc.index.model import Layer
from clip_runc.index.prefetch import PrefetchList, pack_prefetch, unpack_prefetch

WINDOW = 1 << 15

_EROFS_LEVEL = 9


class ClipFile:
    """An open index.  Attributes are read-only; ``close`` it, or use it with ``with``.

    ``manifest`` and ``config`` are raw JSON as in the registry; ``manifest_digest`` is
    ``sha256:<hex>``; ``platform`` like ``linux/amd64``; ``source`` ``host/repository``.
    """

    def __init__(self, descriptor: int) -> None:
        """Takes over ``descriptor``; use ``open``."""
        self._descriptor = descriptor
        self.size = _regular_size(descriptor)
        self._sections = fmt.read_table(os.pread(descriptor, fmt.TABLE_SIZE, 0), self.size)
        self.manifest = self._section(b"MANI")
        self.manifest_digest = "sha256:" + hashlib.sha256(self.manifest).hexdigest()
        self.platform = _utf8(self._section(b"PLAT"))
        self.source = _utf8(self._section(b"SRCE"))
        self.layers: tuple[Layer, ...] = unpack_layers(
            self._section(b"LAYR"), self._section(b"CHNK"), self._sections[b"WIND"].length
        )

    @classmethod
    def open(cls, path_or_fd: str | int) -> ClipFile:
        """Open a path, or a descriptor (which is duplicated).  Raises ``IndexFormatError``."""
        try:
            if isinstance(path_or_fd, int):
                descriptor = os.dup(path_or_fd)
            else:
                descriptor = os.open(path_or_fd, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise IndexFormatError(f"{path_or_fd}: {error.strerror}") from None
        try:
            return cls(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise IndexFormatError(f"{path_or_fd}: {error.strerror}") from None
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Close the descriptor; what was read stays usable."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """The descriptor, which stays ours."""
        return self._descriptor

    def __enter__(self) -> ClipFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def config(self) -> bytes:
        """The image config, raw JSON."""
        return self._section(b"CONF")

    @property
    def parts(self) -> dict[str, int]:
        """Bytes that each part takes in the file, in order of the sections."""
        names = {
            "documents": (b"MANI", b"CONF", b"PLAT", b"SRCE"),
            "chunks": (b"LAYR", b"CHNK"),
            "windows": (b"WIND",),
            "tree": (b"EROF",),
            "prefetch": (b"PREF",),
        }
        sizes = {key: sum(self._sections[x].length for x in row) for key, row in names.items()}
        return {"header": fmt.TABLE_SIZE, **sizes}

    def window(self, layer: int, chunk: int) -> bytes:
        """The dictionary that ``chunk`` starts from, at most 32 KiB; ``b""`` for none."""
        offset, length = self.layers[layer].chunks[chunk].window
        if not length:
            return b""
        stored = self._read(self._sections[b"WIND"].offset + offset, length)
        return decode_window(stored)

    def erofs(self) -> bytes:
        """The EROFS metadata image, checksum verified; it is *not* checked for sense."""
        return self._section(b"EROF")

    def prefetch(self) -> list[PrefetchList]:
        """What commands want, in the order in which they want it."""
        return unpack_prefetch(self._section(b"PREF"), self.layers)

    @property
    def content_digest(self) -> str:
        """A digest of what the container sees: the same for an image wherever it was fetched,
        whatever was recorded of it, whichever zstd compressed the index.

        Windows are not in it: a wrong one is found by the hash of its chunk, which is.
        """
        digest = hashlib.sha256()
        for name in (b"MANI", b"CONF", b"PLAT", b"LAYR", b"EROF"):
            section = self._sections[name]
            stored = self._read(section.offset, section.length)
            digest.update(name + fmt.raw_digest(section, stored))
        digest.update(b"CHNK" + hashlib.sha256(without_windows(self._section(b"CHNK"))).digest())
        return f"sha256:{digest.hexdigest()}"

    def write_with_source(self, out: BinaryIO, source: str) -> None:
        """Write the same index to ``out`` for data that are to come from ``source``.

        Checks no section; the copy is as sound as this one.
        """
        self._write_with(out, b"SRCE", source.encode())

    def write_with_prefetch(self, out: BinaryIO, lists: Iterable[PrefetchList]) -> None:
        """Write the same index to ``out`` with other prefetch lists; as ``write_with_source``."""
        self._write_with(out, b"PREF", pack_prefetch(lists))

    def _write_with(self, out: BinaryIO, name: bytes, body: bytes) -> None:
        rows: list[fmt.Section] = []
        position = fmt.TABLE_SIZE
        for row in self._sections.values():
            row = row._replace(offset=position)
            if row.name == name:
                digest = hashlib.sha256(body).digest()
                row = fmt.Section(name, fmt.RAW, position, len(body), len(body), digest)
            rows.append(row)
            position += row.length
        table = fmt.pack_table(rows)
        fmt.read_table(table, position)  # refuses what is too long
        out.write(table)
        for old in self._sections.values():
            if old.name == name:
                out.write(body)
                continue
            for start in range(0, old.length, fmt.MIB):
                length = min(fmt.MIB, old.length - start)
                out.write(self._read(old.offset + start, length))

    def check_windows_section(self) -> None:
        """Read the windows through and compare their checksum, in bounded memory."""
        section = self._sections[b"WIND"]
        digest = hashlib.sha256()
        for start in range(0, section.length, fmt.MIB):
            length = min(fmt.MIB, section.length - start)
            digest.update(self._read(section.offset + start, length))
        if digest.digest() != section.sha256:
            raise IndexFormatError("section WIND of a .clip file is damaged")

    def _section(self, name: bytes) -> bytes:
        section = self._sections[name]
        return fmt.decode_section(section, self._read(section.offset, section.length))

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        if len(data) != length:
            raise IndexFormatError("a .clip file became shorter while it was read")
        return data


def decode_window(stored: bytes) -> bytes:
    """The window in one frame of the window section; raises ``IndexFormatError``."""
    try:
        size = zstandard.get_frame_parameters(stored).content_size
    except zstandard.ZstdError as error:
        raise IndexFormatError(f"a window of a .clip file: {error}") from None
    if not 0 < size <= WINDOW:
        raise IndexFormatError(f"a window of a .clip file has {size} bytes")
    return fmt.bounded_zstd(stored, size, "a window")


def write_clip(
    out: BinaryIO,
    *,
    manifest: bytes,
    config: bytes,
    platform: str,
    source: str,
    layers: Sequence[LayerParts],
    erofs: bytes,
    prefetch: Iterable[PrefetchList] = (),
) -> None:
    """Write an index to ``out``.  The same arguments give the same bytes.

    ``layers`` are (layer, windows): the window places of the chunks count from the start of
    their own layer's windows.  Raises ``IndexFormatError`` for what no reader would accept.
    """
    layer_json, chunk_table, windows = pack_layers(layers)
    bodies = {
        b"MANI": manifest,
        b"CONF": config,
        b"PLAT": platform.encode(),
        b"SRCE": source.encode(),
        b"LAYR": layer_json,
        b"CHNK": chunk_table,
        b"WIND": windows,
        b"EROF": erofs,
        b"PREF": pack_prefetch(prefetch),
    }
    sections: list[fmt.Section] = []
    stored_bodies: list[bytes] = []
    position = fmt.TABLE_SIZE
    for name in fmt.LIMITS:
        codec, stored = _encode(name, bodies[name])
        digest = hashlib.sha256(stored).digest()
        raw_length = len(bodies[name])
        sections.append(fmt.Section(name, codec, position, len(stored), raw_length, digest))
        stored_bodies.append(stored)
        position += len(stored)
    table = fmt.pack_table(sections)
    fmt.read_table(table, position)  # refuses what exceeds a limit
    out.write(table)
    for stored in stored_bodies:
        out.write(stored)


def _encode(name: bytes, body: bytes) -> tuple[int, bytes]:
    if name != b"EROF" or not body:
        return fmt.RAW, body
    return fmt.ZSTD, zstandard.ZstdCompressor(level=_EROFS_LEVEL).compress(body)


def _regular_size(descriptor: int) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise IndexFormatError("an index must be a regular file")
    return status.st_size


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise IndexFormatError("a .clip file holds text that is not UTF-8") from None
