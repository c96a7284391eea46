"""Indexing a layer by the table of contents that others made of it, without fetching the layer.

Taken where the manifest vouches for the table: an eStargz or zstd:chunked layer names its digest in
an annotation.  What such an index says of a file is checked when the file is read; what it cannot
know is whether the table says the same as the tar stream, whose digest the image's config has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from clip_runc.errors import ClipError, LayerFormatError
from clip_runc.images.layer_pipeline import Blob
from clip_runc.index import estargz, zstd_chunked
from clip_runc.index.clip_layers import check_chunks
from clip_runc.index.layer_index import LayerIndex
from clip_runc.index.model import ESTARGZ, ZSTD_CHUNKED, Layer
from clip_runc.index.toc_json import TEXT_MAX, Contents

_TAIL = 64 << 10
"""Bytes of an eStargz that are fetched with its footer: a small table is among them."""


class Ranges(Protocol):
    """What we need of a registry."""

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes: ...


class Tables:
    """The tables of contents of one image.  ``fetched`` bytes in ``requests`` so far."""

    def __init__(
        self, manifest: bytes, registry: Ranges, size_limit: int, warn: Callable[[str], None]
    ) -> None:
        self._annotations = annotations_of(manifest)
        self._registry = registry
        self._size_limit = size_limit
        self._warn = warn
        self.fetched = 0
        self.requests = 0

    def layer(self, number: int, blob: Blob, diff_id: str) -> LayerIndex | None:
        """What the table of layer ``number`` says; None, and a warning, where none can be used."""
        try:
            found = self._find(blob, self._annotations[number])
            if found is None:
                self._warn(f"layer {blob.digest} has no table of contents: it is read whole")
                return None
            return self._index(blob, diff_id, *found)
        except ClipError as error:
            self._warn(f"layer {blob.digest} is read whole: {error.message}")
            return None

    def _find(self, blob: Blob, annotations: Mapping[str, str]) -> tuple[str, str, Contents] | None:
        if digest := zstd_chunked.toc_digest(annotations):
            place = zstd_chunked.table(annotations, blob.size)
            packed = self._read(blob, place.offset, place.offset + place.size)
            return ZSTD_CHUNKED, digest, zstd_chunked.parse(packed, place)
        if digest := estargz.toc_digest(annotations):
            return ESTARGZ, digest, self._estargz(blob, digest)
        return None

    def _estargz(self, blob: Blob, digest: str) -> Contents:
        tail_start = max(0, blob.size - _TAIL)
        tail = self._read(blob, tail_start, blob.size)
        offset = estargz.toc_offset(tail[-estargz.FOOTER_SIZE :], blob.size)
        start = min(offset, tail_start)
        missing = self._read(blob, start, tail_start) if start < tail_start else b""
        member = (missing + tail)[offset - start : -estargz.FOOTER_SIZE]
        return estargz.parse(member, offset, digest)

    def _index(
        self, blob: Blob, diff_id: str, origin: str, digest: str, found: Contents
    ) -> LayerIndex:
        if found.raw_size > self._size_limit:
            raise LayerFormatError(f"its files come to {found.raw_size} bytes")
        codec = ("members", "gzip") if origin == ESTARGZ else ("zstd", "zstd")
        layer = Layer(
            blob.digest,
            diff_id,
            blob.media_type,
            *codec,
            blob.size,
            found.raw_size,
            found.chunks,
            origin,
            digest,
        )
        check_chunks(layer, 0)
        return LayerIndex(layer, found.entries, b"")

    def _read(self, blob: Blob, start: int, end: int) -> bytes:
        if end - start > TEXT_MAX:
            raise LayerFormatError(f"a table of contents of {end - start} bytes")
        data = self._registry.read_range(blob.digest, start, end)
        self.fetched += end - start
        self.requests += 1
        return data


def annotations_of(manifest: bytes) -> list[dict[str, str]]:
    """The annotations of each layer of a manifest that has been looked at before."""
    layers: list[Any] = json.loads(manifest)["layers"]
    found = []
    for layer in layers:
        annotations = layer.get("annotations")
        pairs = annotations.items() if isinstance(annotations, dict) else ()
        found.append({key: value for key, value in pairs if isinstance(value, str)})
    return found
