"""eStargz: a gzip layer of many members, the last but one of which is a table of contents.

::

    members: tar headers, and the data of each file (or 4 MiB of it) from a member's start on
    a member with the tar entry ``stargz.index.json``, and the end of the tar stream
    51 bytes: an empty member whose header says where that one begins

The manifest names the SHA-256 of the JSON in an annotation of the layer, so the table is as
trustworthy as the manifest.  Source: docs/estargz.md of stargz-snapshotter.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace

from clip_runc.errors import DigestMismatch, LayerFormatError
from clip_runc.index import toc_json
from clip_runc.index.model import BLOCK, Chunk, Entry, Extent
from clip_runc.index.tar import TarScanner
from clip_runc.index.toc_json import Contents

ANNOTATION = "containerd.io/snapshot/stargz/toc.digest"
FOOTER_SIZE = 51
NAME = b"stargz.index.json"

_FOOTER = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x1a\x00SG\x16\x00([0-9a-f]{16})STARGZ\x01\x00\x00\xff\xff\x00{8}",
    re.DOTALL,
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_TAR_MAX = toc_json.TEXT_MAX + (64 << 10)


def toc_digest(annotations: Mapping[str, str]) -> str:
    """The digest of a layer's table as its manifest says it; empty for no eStargz layer."""
    digest = annotations.get(ANNOTATION, "")
    return digest if _DIGEST.fullmatch(digest) else ""


def toc_offset(footer: bytes, size: int) -> int:
    """Where in a blob of ``size`` bytes that ends in ``footer`` the table's member begins.

    Raises ``LayerFormatError``.
    """
    match = _FOOTER.fullmatch(footer)
    if match is None:
        raise LayerFormatError("the layer does not end as an eStargz does")
    offset = int(match[1], 16)
    if offset >= size - FOOTER_SIZE:
        raise LayerFormatError("an eStargz whose table of contents is outside of it")
    return offset


def parse(member: bytes, offset: int, digest: str) -> Contents:
    """What is in a layer with the table in ``member``, which begins at ``offset`` of the blob.

    The table itself is among the files: who unpacks the layer finds it there.  Raises
    ``DigestMismatch`` for a table that is not ``digest``, ``LayerFormatError``.
    """
    stream = _inflate(member)
    scanner = TarScanner()
    scanner.feed(stream)
    entries = scanner.close()
    if len(entries) != 1 or entries[0].path != NAME or len(entries[0].extents) != 1:
        raise LayerFormatError("an eStargz whose table of contents is not where it must be")
    (place,) = entries[0].extents
    text = stream[place.stream : place.stream + place.length]
    if f"sha256:{hashlib.sha256(text).hexdigest()}" != digest:
        raise DigestMismatch("the table of contents is not the one that the manifest names")
    found = toc_json.parse(text, offset)
    return _with_table(found, entries[0], bytes.fromhex(digest[7:]), (offset, offset + len(member)))


def _inflate(member: bytes) -> bytes:
    inflater = zlib.decompressobj(31)
    try:
        stream = inflater.decompress(member, _TAR_MAX)
    except zlib.error as error:
        raise LayerFormatError(f"an eStargz's table of contents: {error}") from None
    if not inflater.eof or inflater.unused_data:
        raise LayerFormatError(f"an eStargz's table of contents is over {_TAR_MAX} bytes, or cut")
    return stream


def _with_table(found: Contents, table: Entry, sha256: bytes, member: tuple[int, int]) -> Contents:
    (place,) = table.extents
    position = found.raw_size
    pad = -place.length % BLOCK
    chunk = Chunk(
        position,
        position + place.length + pad,
        *member,
        sha256,
        pad=pad,
        skip=place.stream,
    )
    entry = replace(table, extents=(Extent(0, position, place.length),))
    return Contents((*found.entries, entry), (*found.chunks, chunk), chunk.raw_end)
