"""zstd:chunked: a layer of many zstd frames, and a table of contents in a frame that decoders skip.

Two programs write it.  containers/storage (podman, buildah, skopeo) begins a frame at each file's
data and where its rolling hash says so, and ends it there; stargz-snapshotter begins one at each
file's data, with the headers of what follows behind them.  Both name position and SHA-256 of the
compressed table in annotations of the layer, so the table is as trustworthy as the manifest.

Sources: pkg/chunked/internal/minimal/compression.go of containers/storage,
estargz/zstdchunked/zstdchunked.go of stargz-snapshotter.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import zstandard

from clip_runc.errors import DigestMismatch, LayerFormatError
from clip_runc.index import toc_json
from clip_runc.index.toc_json import Contents
from clip_runc.index.zstd_frames import WINDOW_MAX

PREFIXES = ("io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.")
"""Of the annotations ``manifest-checksum`` and ``manifest-position``."""

_FRAME_HEADER = 8
_CRFS = 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_POSITION = re.compile(r"(\d{1,18}):(\d{1,18}):(\d{1,18}):(\d{1,3})", re.ASCII)


class Table(NamedTuple):
    """Where a layer's table is: ``size`` bytes at ``offset`` of the blob, ``raw_size`` inside."""

    offset: int
    size: int
    raw_size: int
    digest: str


def toc_digest(annotations: Mapping[str, str]) -> str:
    """The digest of a layer's table as its manifest says it; empty where there is none."""
    for prefix in PREFIXES:
        digest = annotations.get(f"{prefix}manifest-checksum", "")
        if _DIGEST.fullmatch(digest):
            return digest
    return ""


def table(annotations: Mapping[str, str], size: int) -> Table:
    """Where the table is in a blob of ``size`` bytes.  Raises ``LayerFormatError``."""
    for prefix in PREFIXES:
        match = _POSITION.fullmatch(annotations.get(f"{prefix}manifest-position", ""))
        if match is not None:
            break
    else:
        raise LayerFormatError("the manifest does not say where the table of contents is")
    offset, length, raw, kind = map(int, match.groups())
    if kind != _CRFS:
        raise LayerFormatError(f"a table of contents of kind {kind}")
    if not _FRAME_HEADER < offset < offset + length <= size or raw > toc_json.TEXT_MAX:
        raise LayerFormatError(f"a table of contents of {raw} bytes at {offset}+{length}")
    return Table(offset, length, raw, toc_digest(annotations))


def parse(packed: bytes, place: Table) -> Contents:
    """What is in a layer with the table ``packed`` at ``place``.

    Raises ``DigestMismatch`` for a table that is another one, ``LayerFormatError``.
    """
    if f"sha256:{hashlib.sha256(packed).hexdigest()}" != place.digest:
        raise DigestMismatch("the table of contents is not the one that the manifest names")
    decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
    try:
        with decoder.stream_reader(packed) as reader:
            text = reader.read(place.raw_size + 1)
    except zstandard.ZstdError as error:
        raise LayerFormatError(f"a table of contents: {error}") from None
    if len(text) != place.raw_size:
        raise LayerFormatError(f"a table of contents that is not of {place.raw_size} bytes")
    return toc_json.parse(text, place.offset - _FRAME_HEADER)
