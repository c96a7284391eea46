"""Indexing a layer by the table of contents that others made of it, without fetching the layer.

Taken where the manifest vouches for the table: an eStargz or zstd:chunked layer names its digest in
an annotation, an image its SOCI index; and a SOCI index beside the image where the configuration
trusts its repository.  What such an index says of a file is checked when the file is read; what it
cannot know is whether the table says the same as the tar stream, whose digest is in the image's
config.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from clip_runc.errors import ClipError, LayerFormatError
from clip_runc.images import soci
from clip_runc.images.layer_pipeline import Blob
from clip_runc.index import estargz, zstd_chunked, ztoc
from clip_runc.index.clip_layers import check_chunks
from clip_runc.index.layer_index import LayerIndex
from clip_runc.index.model import ESTARGZ, ZSTD_CHUNKED, ZTOC, Layer
from clip_runc.index.toc_json import TEXT_MAX, Contents
from clip_runc.index.ztoc import Described
from clip_runc.registry.image import Descriptor

_TAIL = 64 << 10
"""Bytes of an eStargz that are fetched with its footer: a small table is among them."""


class Ranges(soci.Repository, Protocol):
    """What we need of a registry."""

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes: ...


class _Image(Protocol):
    @property
    def manifest(self) -> bytes: ...
    @property
    def manifest_digest(self) -> str: ...
    @property
    def registry(self) -> Ranges: ...


class Tables:
    """The tables of contents of one image.  ``fetched`` bytes in ``requests`` so far."""

    def __init__(
        self,
        image: _Image,
        size_limit: int,
        warn: Callable[[str], None],
        *,
        referrers: bool = False,
    ) -> None:
        """With ``referrers`` a SOCI index that only refers to the image is believed."""
        self._image = image
        self._annotations = annotations_of(image.manifest)
        self._registry = image.registry
        self._referrers = referrers
        self._ztocs: dict[str, Descriptor] | None = None
        self._size_limit = size_limit
        self._warn = warn
        self.fetched = 0
        self.requests = 0

    def layer(self, number: int, blob: Blob, diff_id: str) -> LayerIndex | None:
        """What the table of layer ``number`` says; None, and a warning, where none can be used."""
        try:
            found = self._find(blob, diff_id, self._annotations[number])
            if found is None:
                self._warn(f"layer {blob.digest} has no table of contents: it is read whole")
            return found
        except ClipError as error:
            self._warn(f"layer {blob.digest} is read whole: {error.message}")
            return None

    def _find(self, blob: Blob, diff_id: str, annotations: Mapping[str, str]) -> LayerIndex | None:
        if digest := zstd_chunked.toc_digest(annotations):
            place = zstd_chunked.table(annotations, blob.size)
            packed = self._read(blob, place.offset, place.offset + place.size)
            found = zstd_chunked.parse(packed, place)
            return self._index(blob, diff_id, (ZSTD_CHUNKED, digest), found, ("zstd", "zstd"))
        if digest := estargz.toc_digest(annotations):
            found = self._estargz(blob, digest)
            return self._index(blob, diff_id, (ESTARGZ, digest), found, ("members", "gzip"))
        if (ztoc_blob := self._ztoc_of(blob.digest)) is not None:
            described = ztoc.parse(self._fetch(ztoc_blob), blob.size)
            codec = (described.codec, described.codec)
            return self._index(blob, diff_id, (ZTOC, ztoc_blob.digest), described, codec)
        return None

    def _ztoc_of(self, layer: str) -> Descriptor | None:
        if self._ztocs is None:
            self._ztocs = {}  # is asked for once, also when that fails
            image = self._image
            self._ztocs = soci.ztocs(
                self._registry, image.manifest, image.manifest_digest, referrers=self._referrers
            )
        return self._ztocs.get(layer)

    def _fetch(self, blob: Descriptor) -> bytes:
        data = soci.fetch(self._registry, blob)
        self.fetched += len(data)
        self.requests += 1
        return data

    def _estargz(self, blob: Blob, digest: str) -> Contents:
        tail_start = max(0, blob.size - _TAIL)
        tail = self._read(blob, tail_start, blob.size)
        offset = estargz.toc_offset(tail[-estargz.FOOTER_SIZE :], blob.size)
        start = min(offset, tail_start)
        missing = self._read(blob, start, tail_start) if start < tail_start else b""
        member = (missing + tail)[offset - start : -estargz.FOOTER_SIZE]
        return estargz.parse(member, offset, digest)

    def _index(
        self,
        blob: Blob,
        diff_id: str,
        origin: tuple[str, str],
        found: Contents | Described,
        codec: tuple[str, str],
    ) -> LayerIndex:
        if found.raw_size > self._size_limit:
            raise LayerFormatError(f"it comes to {found.raw_size} bytes")
        layer = Layer(
            blob.digest,
            diff_id,
            blob.media_type,
            *codec,
            blob.size,
            found.raw_size,
            found.chunks,
            *origin,
        )
        windows = found.windows if isinstance(found, Described) else b""
        check_chunks(layer, len(windows))
        return LayerIndex(layer, found.entries, windows)

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
