"""A small writer of layers that carry a table of contents, in the three ways in which they are.

Follows the writers that are named in ``clip_runc/index/estargz.py`` and ``zstd_chunked.py``.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import json
import struct
import tarfile
from dataclasses import dataclass, field
from typing import Any

import zstandard

from clip_runc.index import estargz, zstd_chunked

FLAVOURS = ("estargz", "zstd:chunked", "zstd:chunked of stargz")
TYPES = {
    tarfile.REGTYPE: "reg",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}


@dataclass(frozen=True)
class Member:
    """A tar header, the file's data, and its xattrs."""

    info: tarfile.TarInfo
    data: bytes = b""
    xattrs: dict[str, bytes] = field(default_factory=dict)

    def header(self) -> bytes:
        self.info.size = len(self.data)
        self.info.pax_headers = {
            f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
            for name, value in self.xattrs.items()
        }
        return self.info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def member(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "", **values: Any
) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    xattrs = values.pop("xattrs", {})
    for key, value in values.items():
        setattr(info, key, value)
    return Member(info, data, xattrs)


@dataclass(frozen=True)
class Published:
    """A blob, the tar stream in it, and what a manifest says of it."""

    blob: bytes
    stream: bytes
    annotations: dict[str, str]
    media_type: str

    @property
    def diff_id(self) -> str:
        return digest(self.stream)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def published(
    flavour: str, members: list[Member], *, chunk_size: int = 4 << 20, least: int = 0
) -> Published:
    """The layer; files are cut every ``chunk_size`` bytes, a gzip member has ``least`` or more."""
    return _Writer(flavour, chunk_size, least).layer(members)


class _Writer:
    def __init__(self, flavour: str, chunk_size: int, least: int) -> None:
        self.flavour, self.chunk_size, self.least = flavour, chunk_size, least
        self.blob, self.stream, self.open = bytearray(), bytearray(), bytearray()
        self.rows: list[dict[str, Any]] = []

    def layer(self, members: list[Member]) -> Published:
        for one in members:
            self._add(one)
        if self.flavour == "estargz":
            self._close()
            return self._estargz()
        self._write(bytes(1024))
        self._close()
        return self._zstd_chunked()

    def _write(self, data: bytes) -> None:
        self.open += data
        self.stream += data

    def _close(self) -> None:
        if self.open:
            pack = gzip.compress if self.flavour == "estargz" else zstandard.compress
            self.blob += pack(bytes(self.open))
            self.open.clear()

    def _add(self, one: Member) -> None:
        self._write(one.header())
        rows = [_row(one, nanoseconds=self.flavour == "zstd:chunked")]
        data = one.data if one.info.isreg() else b""
        pieces = [data[at : at + self.chunk_size] for at in range(0, len(data), self.chunk_size)]
        for number, piece in enumerate(pieces):
            if number:
                rows.append({"name": one.info.name, "type": "chunk"})
            if len(self.open) >= self.least:
                self._close()
            row = rows[-1]
            row |= {"offset": len(self.blob), "innerOffset": len(self.open)}
            if number:
                row["chunkOffset"] = number * self.chunk_size
            if len(pieces) > 1 or self.flavour != "zstd:chunked":
                row["chunkDigest"] = digest(piece)
            if len(piece) == self.chunk_size or self.flavour == "zstd:chunked":
                row["chunkSize"] = len(piece)
            self._write(piece)
        if data:
            rows[0]["digest"] = digest(data)
            if self.flavour == "zstd:chunked":
                self._close()
                rows[0]["endOffset"] = len(self.blob)
        self._write(bytes(-len(data) % 512))
        self.rows += rows

    def _toc(self) -> bytes:
        return json.dumps({"version": 1, "entries": self.rows}).encode()

    def _estargz(self) -> Published:
        text, offset = self._toc(), len(self.blob)
        table = member(estargz.NAME.decode(), text)
        self._write(table.header() + text + bytes(-len(text) % 512) + bytes(1024))
        self._close()
        extra = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % offset
        self.blob += (
            b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)) + extra
        )
        self.blob += b"\x01\x00\x00\xff\xff" + bytes(8)
        annotations = {estargz.ANNOTATION: digest(text)}
        return self._done(annotations, "application/vnd.oci.image.layer.v1.tar+gzip")

    def _zstd_chunked(self) -> Published:
        text = self._toc()
        packed = zstandard.compress(text)
        prefix = zstd_chunked.PREFIXES[self.flavour != "zstd:chunked"]
        offset = len(self.blob) + 8
        annotations = {
            f"{prefix}manifest-checksum": digest(packed),
            f"{prefix}manifest-position": f"{offset}:{len(packed)}:{len(text)}:1",
        }
        for body in (packed, bytes(40)):
            self.blob += b"\x50\x2a\x4d\x18" + struct.pack("<I", len(body)) + body
        return self._done(annotations, "application/vnd.oci.image.layer.v1.tar+zstd")

    def _done(self, annotations: dict[str, str], media_type: str) -> Published:
        return Published(bytes(self.blob), bytes(self.stream), annotations, media_type)


def _row(one: Member, *, nanoseconds: bool) -> dict[str, Any]:
    info = one.info
    time = datetime.datetime.fromtimestamp(int(info.mtime), datetime.UTC)
    text = time.strftime("%Y-%m-%dT%H:%M:%S")
    if nanoseconds:
        text += f".{round(info.mtime % 1 * 10**9):09d}"
    row = {
        "name": info.name,
        "type": TYPES[info.type],
        "size": len(one.data),
        "modtime": text + "Z",
        "linkName": info.linkname,
        "mode": info.mode,
        "uid": info.uid,
        "gid": info.gid,
        "devMajor": info.devmajor,
        "devMinor": info.devminor,
        "xattrs": {key: base64.b64encode(value).decode() for key, value in one.xattrs.items()},
    }
    return {key: value for key, value in row.items() if value}
