"""From an attached index to an image of the view: opens the .clip file and its layers."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from clip_runc.errors import ClipError, DigestMismatch
from clip_runc.fs.background import Background
from clip_runc.fs.recording import EVENTS, ObservedFetcher, Observers
from clip_runc.fs.sources import Sources
from clip_runc.fs.view import Image, LayerFile, View
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.model import Layer
from clip_runc.index.prefetch import choose
from clip_runc.store import ChunkStore, LayerReader
from clip_runc.store.geometry import Geometry
from clip_runc.store.replay import Part, Replay

TRACE_ROWS = 1500
"""Rows in one answer: a message has at most ``protocol.LIMIT`` bytes."""


class _Open:
    """An attached image: its index, and a reader for each layer."""

    def __init__(self, clip: ClipFile, readers: list[LayerReader], names: list[str]) -> None:
        self.clip = clip
        self.readers = readers
        self.names = names

    def layers(self) -> list[dict[str, object]]:
        """Each layer: which, under what name it is served, its size, what of it is there.

        ``complete`` is said only of data that are where everybody looks for them.
        """
        return [
            {
                "diff": layer.diff_hex,
                "file": name,
                "complete": reader.complete and reader.data_path == f"{layer.diff_hex}/data",
                "size": reader.size,
                "present": round(reader.present() / max(1, reader.chunk_count), 4),
                "fetched": reader.stats.fetched_bytes,
            }
            for layer, reader, name in zip(self.clip.layers, self.readers, self.names, strict=True)
        ]


class Catalog:
    """What the server has attached, and what it says about it."""

    def __init__(
        self,
        view: View,
        store: ChunkStore,
        sources: Sources,
        prefetch_rate: int = 0,
        background_rate: int = 0,
    ) -> None:
        self.view = view
        self._store = store
        self._sources = sources
        self._rate = prefetch_rate
        self._open: dict[str, _Open] = {}
        self._observers = Observers()
        self._fetchers: dict[str, ObservedFetcher] = {}
        self._fetches: deque[tuple[float, float, str, int, int, bool]] = deque(maxlen=EVENTS)
        self._replays: dict[str, Replay] = {}
        self._background = Background(store, background_rate)

    def attach(self, index: int, manifest_hex: str, slot: int) -> dict[str, object]:
        """Serve the image whose .clip file is open as ``index``; its layers.

        Raises ``ClipError``; then nothing has changed.
        """
        known = self.view.image(manifest_hex)
        if known is None or known.slot != slot:
            self._attach(index, manifest_hex, slot)
        return {"layers": self._open[manifest_hex].layers()}

    def _attach(self, index: int, manifest_hex: str, slot: int) -> None:
        clip = ClipFile.open(index)
        # Readers that another image shares may come for a window long after the detach.
        weakref.finalize(clip, os.close, clip.fileno())
        # an index out of a stub image goes by the digest of its own bytes
        if clip.manifest_digest != f"sha256:{manifest_hex}" and manifest_hex != _digest_of(clip):
            raise DigestMismatch(
                f"the index is of {clip.manifest_digest}, not of sha256:{manifest_hex}",
                "remove the index and make it again",
            )
        readers: list[LayerReader] = []
        try:
            source = self._fetcher(clip.source)
            for number, layer in enumerate(clip.layers):
                window = partial(clip.window, number)
                readers.append(self._store.open_layer(layer, window, source))
            new = _Open(clip, readers, [file_name(layer) for layer in clip.layers])
            files = [
                LayerFile(name, layer.diff_hex, self._observers.of(reader))
                for name, layer, reader in zip(new.names, clip.layers, readers, strict=True)
            ]
            self.view.attach(Image(manifest_hex, slot, files, clip.erofs))
        except BaseException:
            self._close(readers)
            raise
        old = self._open.pop(manifest_hex, None)
        self._open[manifest_hex] = new
        if old is not None:
            self._close(old.readers)

    def _fetcher(self, name: str) -> ObservedFetcher:
        if name not in self._fetchers:
            self._fetchers[name] = ObservedFetcher(self._sources.get(name), self._fetches)
        return self._fetchers[name]

    def _close(self, readers: list[LayerReader]) -> None:
        for reader in readers:
            self._store.close_layer(reader)

    def files_of(self, readers: Iterable[LayerReader]) -> set[str]:
        """The names in ``layers/`` of what these readers read."""
        wanted = set(readers)
        images = list(self._open.values())
        pairs = [pair for one in images for pair in zip(one.readers, one.names, strict=True)]
        return {name for reader, name in pairs if reader in wanted}

    def detach(self, manifest_hex: str) -> None:
        """Serve it no longer."""
        self.stop_completing(manifest_hex)
        self.view.detach(manifest_hex)
        old = self._open.pop(manifest_hex, None)
        if old is not None:
            self._close(old.readers)

    def prefetch(
        self, manifest_hex: str, command: list[str], lease: str, done: Callable[[], None]
    ) -> None:
        """Fetch what the index lists for ``command`` until ``stop_prefetch`` of that lease.

        ``done`` is called in another thread when that is over.
        """
        if manifest_hex not in self._open:
            raise ClipError(f"sha256:{manifest_hex} is not attached", "attach it first")
        found = self._open[manifest_hex]
        chosen = choose(found.clip.prefetch(), command)
        parts = [
            Part(found.readers[one.layer], one.first, one.last)
            for one in (chosen.ranges if chosen else ())
        ]
        self.stop_prefetch(lease)
        self._replays[lease] = Replay(parts, self._rate, done)
        self._replays[lease].start()

    def stop_prefetch(self, lease: str) -> None:
        """The container of that lease is gone, or has all that is listed."""
        running = self._replays.pop(lease, None)
        if running is not None:
            running.stop()

    def complete(self, manifest_hex: str, done: Callable[[int], None]) -> None:
        """Fetch what is lacking of an image, in the background, until ``stop_completing``.

        ``done`` is called in another thread when that is over, with the number of chunks that
        are lacking still.
        """
        if manifest_hex not in self._open:
            raise ClipError(f"sha256:{manifest_hex} is not attached", "attach it first")
        self._background.begin(manifest_hex, self._open[manifest_hex].readers, done)

    def stop_completing(self, manifest_hex: str) -> None:
        """No container uses the image any more."""
        self._background.end(manifest_hex)

    def trace(self, manifest_hex: str, part: str, start: int) -> dict[str, object]:
        """Rows of what was seen of an image from row ``start`` on, and where to go on (or -1).

        ``part`` is ``layers``, ``touched``, ``waits``, ``hits`` or ``fetches``; the rows are those
        of ``fs/recording.py``, with the layer's place in the image before the rest.
        """
        if manifest_hex not in self._open:
            raise ClipError(f"sha256:{manifest_hex} is not attached", "nothing is known of it now")
        rows = list(self._rows(self._open[manifest_hex], part))
        following = start + TRACE_ROWS if start + TRACE_ROWS < len(rows) else -1
        return {"rows": rows[start : start + TRACE_ROWS], "next": following}

    def _rows(self, found: _Open, part: str) -> Iterator[list[object]]:
        places = {layer.digest: number for number, layer in enumerate(found.clip.layers)}
        if part == "fetches":
            for began, seconds, digest, start, end, good in list(self._fetches):
                if digest in places:
                    yield [places[digest], began, seconds, start, end, int(good)]
            return
        for number, (layer, reader) in enumerate(
            zip(found.clip.layers, found.readers, strict=True)
        ):
            seen = self._observers.of(reader)
            if part == "layers":
                yield [number, layer.diff_hex, layer.comp_size, layer.raw_size, reader.present()]
            elif places[layer.digest] == number:
                events = {"touched": seen.touched, "waits": seen.waits.copy, "hits": seen.hits.copy}
                for row in events[part]():
                    yield [number, *row]

    def status(self) -> dict[str, object]:
        """Each image with its layers, and what the store has done."""
        images = [
            {"manifest": name, "source": found.clip.source, "layers": found.layers()}
            for name, found in self._open.items()
        ]
        store = self._store.stats().as_dict()
        quota = self._store.quota
        store.update(used_bytes=quota.used(), limit_bytes=quota.limit)
        return {
            "images": images,
            "fetched": store["fetched_bytes"],
            "store": store,
            "background": self._background.status(),
        }


def file_name(layer: Layer) -> str:
    """The name of a layer's file in ``layers/``: its diff_id, its chunks and their hashes."""
    return hashlib.sha256(f"sha256:{layer.diff_hex}".encode() + Geometry(layer).digest).hexdigest()


def _digest_of(clip: ClipFile) -> str:
    digest, offset = hashlib.sha256(), 0
    while data := os.pread(clip.fileno(), 1 << 20, offset):
        digest.update(data)
        offset += len(data)
    return digest.hexdigest()
