"""Building an index: every layer once, from the registry, then the EROFS image over all.

Made to run in a process without privileges: it gets open files, not paths, and what it parses
comes from anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Protocol

from clip_runc.config import LAYER_SIZE_LIMIT
from clip_runc.errors import ClipError
from clip_runc.images import layer_cache
from clip_runc.images.layer_pipeline import Blob, Keep, LayerRequest, index_layer
from clip_runc.images.media_types import expected_compression
from clip_runc.images.published import Ranges, Tables
from clip_runc.images.side_by_side import Stop, Work, side_by_side
from clip_runc.index.clipfile import write_clip
from clip_runc.index.erofs_write import write_erofs
from clip_runc.index.layer_index import LayerIndex
from clip_runc.index.model import Layer
from clip_runc.index.tree import flatten

_AT_ONCE = 2
"""Layers that are indexed side by side."""

_SMALL_MIB = 8
"""Distance of checkpoints from which on one layer at a time takes memory enough."""

Progress = Callable[[str, int, int], None]
"""``progress(layer digest, bytes received, bytes in all)``; called from other threads too."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class Image(Protocol):
    """What is needed of a ``registry.image.RegistryImage``."""

    @property
    def reference(self) -> _Named: ...
    @property
    def registry(self) -> Ranges: ...
    @property
    def manifest(self) -> bytes: ...
    @property
    def manifest_digest(self) -> str: ...
    @property
    def config(self) -> bytes: ...
    @property
    def platform(self) -> str: ...
    @property
    def layers(self) -> Sequence[Blob]: ...
    @property
    def diff_ids(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build did: ``fetched`` bytes of layers, ``reused`` digests of cached layers."""

    manifest_digest: str
    platform: str
    layers: tuple[Layer, ...] = field(repr=False)
    fetched: int
    reused: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float


def build_index(
    source: Image,
    out: BinaryIO,
    *,
    cache_fd: int | None = None,
    checkpoint_mib: int = 2,
    keep: Keep | None = None,
    progress: Progress | None = None,
    layer_size_limit: int = LAYER_SIZE_LIMIT,
    published: bool = False,
    referrers: bool = False,
) -> BuildResult:
    """Index the image ``source`` and write the ``.clip`` file to ``out``.

    ``cache_fd`` is a directory for indexed layers.  ``keep`` gets the uncompressed bytes of the
    layers that are fetched (not of cached ones).  ``layer_size_limit``: uncompressed bytes that no
    layer may exceed.  ``published``: a table of contents that the manifest vouches for is fetched
    instead of its layer, with ``referrers`` also one that only refers to the image.  The same image
    and arguments give the same bytes.  Raises ``DigestMismatch``, ``LayerFormatError``,
    ``RegistryError``, ``StoreError``.
    """
    started = time.monotonic()
    build = _Build(source, cache_fd, checkpoint_mib, keep, progress, layer_size_limit)
    if published:
        warn = build.warnings.append
        build.tables = Tables(source, layer_size_limit, warn, referrers=referrers)
    indexes = build.layers()
    root = flatten([index.entries for index in indexes])
    sizes = [index.layer.raw_size for index in indexes]
    write_clip(
        out,
        manifest=source.manifest,
        config=source.config,
        platform=source.platform,
        source=source.reference.name,
        layers=[(index.layer, index.windows) for index in indexes],
        erofs=write_erofs(root, sizes, [index.layer.diff_hex for index in indexes]),
    )
    return BuildResult(
        manifest_digest=source.manifest_digest,
        platform=source.platform,
        layers=tuple(index.layer for index in indexes),
        fetched=build.fetched,
        reused=tuple(build.reused),
        warnings=tuple(build.warnings),
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True)
class _Made:
    """A layer's index, and what it took."""

    index: LayerIndex
    fetched: int
    warnings: list[str]
    reused: bool = False


class _Build:
    def __init__(
        self,
        source: Image,
        cache_fd: int | None,
        checkpoint_mib: int,
        keep: Keep | None,
        progress: Progress | None,
        layer_size_limit: int,
    ) -> None:
        self._source = source
        self._cache_fd = cache_fd
        self._checkpoint_mib = checkpoint_mib
        self._keep = keep
        self._progress = progress
        self._layer_size_limit = layer_size_limit
        self.fetched = 0
        self.reused: list[str] = []
        self.warnings: list[str] = []
        self.tables: Tables | None = None

    def layers(self) -> list[LayerIndex]:
        """All layers, bottom first; each distinct one is made or loaded once."""
        source = self._source
        if not 1 <= self._checkpoint_mib <= 64:
            raise ClipError(f"checkpoints every {self._checkpoint_mib} MiB: 1 to 64 are possible")
        for blob in source.layers:
            expected_compression(blob.media_type)  # refuses before the first byte is fetched
        found: dict[tuple[str, str], LayerIndex] = {}
        asked: dict[tuple[str, str], Blob] = {}
        pairs = list(zip(source.layers, source.diff_ids, strict=True))
        for number, (blob, diff_id) in enumerate(pairs):
            key = (blob.digest, diff_id)
            if key not in found and key not in asked:
                table = self._by_table(number, blob, diff_id)
                if table is None:
                    asked[key] = blob
                else:
                    found[key] = table
        made = self._make(asked)
        found.update(zip(asked, made, strict=True))
        return [found[blob.digest, diff_id] for blob, diff_id in pairs]

    def _make(self, asked: dict[tuple[str, str], Blob]) -> list[LayerIndex]:
        """Layers from the cache or from their blobs, in order."""
        works = [
            Work(frozenset(key), blob.size, partial(self._layer, blob, key[1]))
            for key, blob in asked.items()
        ]
        made = side_by_side(works, _AT_ONCE if self._checkpoint_mib <= _SMALL_MIB else 1)
        for blob, one in zip(asked.values(), made, strict=True):
            self.fetched += one.fetched
            self.warnings += one.warnings
            if one.reused:
                self.reused.append(blob.digest)
        return [one.index for one in made]

    def _by_table(self, number: int, blob: Blob, diff_id: str) -> LayerIndex | None:
        if self.tables is None:
            return None
        before = self.tables.fetched
        found = self.tables.layer(number, blob, diff_id)
        self.fetched += self.tables.fetched - before
        if found is not None and self._progress is not None:
            self._progress(blob.digest, blob.size, blob.size)
        return found

    def _layer(self, blob: Blob, diff_id: str, stop: Stop) -> _Made:
        cached = layer_cache.load(self._cache_fd, blob.digest, self._checkpoint_mib)
        limit = self._layer_size_limit
        if cached is not None and _same(cached.layer, blob, diff_id, limit):
            if self._progress is not None:
                self._progress(blob.digest, blob.size, blob.size)
            return _Made(cached, 0, [], reused=True)
        request = LayerRequest(
            blob,
            diff_id,
            checkpoint_mib=self._checkpoint_mib,
            keep=self._keep,
            progress=self._progress,
            size_limit=limit,
        )
        warnings: list[str] = []
        stream = self._source.registry.stream
        result = index_layer(
            request, lambda: stop.until(stream(blob.digest, blob.size)), warnings.append
        )
        layer_cache.save(self._cache_fd, result, self._checkpoint_mib)
        return _Made(result, request.fetched, warnings)


def _same(layer: Layer, blob: Blob, diff_id: str, limit: int) -> bool:
    """Whether a cached layer is what this manifest says: the media type is part of an index."""
    return layer.raw_size <= limit and (layer.comp_size, layer.media_type, layer.diff_id) == (
        blob.size,
        blob.media_type,
        diff_id,
    )
