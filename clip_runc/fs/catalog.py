"""From an attached index to an image of the view: opens the .clip file and its layers."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from clip_runc.errors import DigestMismatch, IndexFormatError
from clip_runc.fs.sources import Source, Sources
from clip_runc.fs.view import Image, Reader, View
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.model import Layer
from clip_runc.store.stats import Stats


class StoredLayer(Reader, Protocol):
    """What is needed of ``store.LayerReader`` beside reading."""

    @property
    def complete(self) -> bool: ...
    @property
    def stats(self) -> Stats: ...


class Store(Protocol):
    """What is needed of ``store.ChunkStore``."""

    def open_layer(
        self, layer: Layer, window: Callable[[int], bytes], fetcher: Source
    ) -> StoredLayer: ...


class Catalog:
    """What the server has attached, and what it says about it."""

    def __init__(self, view: View, store: Store, sources: Sources) -> None:
        self.view = view
        self._store = store
        self._sources = sources
        self._open: dict[str, tuple[ClipFile, list[tuple[str, StoredLayer]]]] = {}

    def attach(self, index: int, manifest_hex: str, slot: int) -> dict[str, object]:
        """Serve the image whose .clip file is open as ``index``; its layers.

        Raises ``ClipError``; then nothing has changed.
        """
        known = self.view.image(manifest_hex)
        if known is None or known.slot != slot:
            self._open_index(index, manifest_hex, slot)
        return self._layers(manifest_hex)

    def _open_index(self, index: int, manifest_hex: str, slot: int) -> None:
        clip = ClipFile.open(index)
        try:
            readers = self._readers(clip, manifest_hex)
            self.view.attach(Image(manifest_hex, slot, list(readers), clip.erofs))
        except BaseException:
            clip.close()
            raise
        # Readers that another image shares may come for a window long after the detach.
        weakref.finalize(clip, os.close, clip.fileno())
        self._open[manifest_hex] = clip, readers

    def _layers(self, manifest_hex: str) -> dict[str, object]:
        readers = self._open[manifest_hex][1]
        return {"layers": [{"diff": n, "complete": bool(r.complete)} for n, r in readers]}

    def _readers(self, clip: ClipFile, manifest_hex: str) -> list[tuple[str, StoredLayer]]:
        if clip.manifest_digest != f"sha256:{manifest_hex}":
            raise DigestMismatch(
                f"the index is of {clip.manifest_digest}, not of sha256:{manifest_hex}",
                "remove the index and make it again",
            )
        source = self._sources.get(clip.source)
        readers = []
        for number, layer in enumerate(clip.layers):
            window = partial(clip.window, number)
            readers.append((layer.diff_hex, self._store.open_layer(layer, window, source)))
        return readers

    def detach(self, manifest_hex: str) -> None:
        """Serve it no longer.  The descriptor goes when the last window has been read."""
        self.view.detach(manifest_hex)
        self._open.pop(manifest_hex, None)

    def prefetch(self, manifest_hex: str) -> Iterator[tuple[Reader, int, int]]:
        """What the index lists as worth having: reader, offset, length, in that order."""
        if manifest_hex not in self._open:
            raise IndexFormatError(f"sha256:{manifest_hex} is not attached", "attach it first")
        clip, readers = self._open[manifest_hex]
        for number, first, last in clip.prefetch():
            chunks = clip.layers[number].chunks[first : last + 1]
            for chunk in chunks:
                yield readers[number][1], chunk.raw_start, chunk.raw_end - chunk.raw_start

    def status(self) -> list[dict[str, object]]:
        """Each image with its layers."""
        return [
            {
                "manifest": name,
                "source": clip.source,
                "layers": [{"diff": n, "size": r.size, "complete": r.complete} for n, r in readers],
            }
            for name, (clip, readers) in self._open.items()
        ]

    def readers(self) -> dict[str, StoredLayer]:
        """The layers of all images, each once."""
        return dict(pair for _, readers in self._open.values() for pair in readers)
