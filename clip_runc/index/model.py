"""The words that the rooms share: tar entries, extents, chunks, layers.

Plain values only.  What reads or writes them lives in the other modules of
``index/``; nothing here does I/O or arithmetic beyond properties.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

BLOCK = 512
"""Bytes in a tar record and in an EROFS block of ours: file data of a tar is aligned to it."""

ESTARGZ, ZSTD_CHUNKED, ZTOC = "estargz", "zstd:chunked", "ztoc"
ORIGINS = (ESTARGZ, ZSTD_CHUNKED, ZTOC)
"""Tables of contents that others publish, with the image or beside it, and that we read."""


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes at ``logical`` in a file lie at ``stream`` in the layer's tar stream.

    A negative ``stream`` is ``~offset`` into the entry's ``literal`` bytes.
    """

    logical: int
    stream: int
    length: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer's tar stream, whiteouts included, as the archive says it.

    ``path`` and, for hard links, ``link`` are normalised: relative to the root of
    the image, no empty, ``.`` or ``..`` component, no slash at either end; ``b""`` is
    the root.  ``kind`` is an ``S_IFMT`` value of ``stat``, or ``0`` for a hard link;
    ``mode`` the lower 12 bits.  ``extents`` cover the stored data of a regular file in
    ascending order, without overlap; what lies between them and below ``size`` is zero.
    All but the end of the last lie on blocks of 512 bytes, in the file and in the stream; data
    of a sparse file that does not is kept here, in ``literal``, whole blocks of it.
    """

    path: bytes
    kind: int
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    extents: tuple[Extent, ...] = ()
    literal: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a layer that is fetched, verified and stored as one.

    ``raw`` offsets count bytes of the uncompressed tar stream, ``comp`` offsets bytes of
    the blob; both are half open.  The first ``bit`` bits of the byte at ``comp_start`` belong
    to the chunk before (gzip only); ``comp_end`` is rounded up to whole bytes.  ``hash`` is of the
    uncompressed bytes, by the layer's ``chunk_hash``.  ``window`` is the place (offset, length) of
    the compressed dictionary in the window section of the index, length 0 for none.

    Only where the layer has an ``origin``: the last ``pad`` bytes of the chunk (fewer than
    ``BLOCK``) are zeros that neither the blob nor ``hash`` knows of, and the first ``skip``
    bytes that ``comp`` uncompresses to belong to something else.
    """

    raw_start: int
    raw_end: int
    comp_start: int
    comp_end: int
    hash: bytes
    bit: int = 0
    window: tuple[int, int] = (0, 0)
    pad: int = 0
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image.

    ``digest`` (of the blob) and ``diff_id`` (of the tar stream) are ``sha256:<hex>``.
    ``codec`` says how a chunk is entered: ``"gzip"`` and ``"zstd"`` at each chunk, ``"none"``
    anywhere, ``"members"`` at the header of a gzip member, ``"stream"`` only from the start of the
    blob (one zstd frame, say), in which case ``comp_start`` and ``comp_end`` of its chunks are not
    used and ``compression`` names the decoder (``"gzip"`` or ``"zstd"``).

    ``origin`` is empty where indexing has read the whole layer.  Else it names the table of
    contents (``ORIGINS``) with the digest ``toc`` that was read instead: then the chunks are what
    that says.  Those of an eStargz or zstd:chunked layer hold the data of its files one after the
    other, each from a block on, and no tar headers; those of a zTOC are the tar stream, and their
    ``hash`` is of the *compressed* bytes.

    ``chunk_hash`` is one of ``chunk_hash.NAMES``.
    """

    digest: str
    diff_id: str
    media_type: str
    codec: str
    compression: str
    comp_size: int
    raw_size: int
    chunks: tuple[Chunk, ...] = field(repr=False)
    origin: str = ""
    toc: str = ""
    chunk_hash: str = "sha256"

    @property
    def diff_hex(self) -> str:
        """64 hexadecimal digits, the layer's name in the store.

        Those of ``diff_id``, unless nobody has seen that the bytes have that digest.
        """
        if not self.origin:
            return self.diff_id.removeprefix("sha256:")
        name = f"clip layer 1 {self.origin} {self.digest} {self.toc}"
        return hashlib.sha256(name.encode()).hexdigest()

    @property
    def hashes_compressed(self) -> bool:
        """Whether the chunks' ``hash`` is of the bytes as they are fetched."""
        return self.origin == ZTOC
