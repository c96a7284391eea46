"""All layers of a host: ``ChunkStore``."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from clip_runc.errors import StoreError
from clip_runc.index.model import Layer
from clip_runc.store.eviction import Quota, touch
from clip_runc.store.fetch_work import FetchWork
from clip_runc.store.geometry import Geometry
from clip_runc.store.held import Held
from clip_runc.store.layer_files import LayerFiles
from clip_runc.store.layer_state import LayerState
from clip_runc.store.reader import LayerReader
from clip_runc.store.residence import Residence
from clip_runc.store.sources import Fetcher, Source, Sources
from clip_runc.store.stats import Stats
from clip_runc.store.stream_fill import StreamFill
from clip_runc.store.workers import Pool


class ChunkStore:
    """The layers below the directory of descriptor ``directory_fd`` (which stays the caller's).

    ``threads`` fetch and inflate; a read fails after ``read_timeout`` seconds; ``boot_id`` is
    the content of ``/proc/sys/kernel/random/boot_id``: what was verified in another boot is
    verified again before it is used.  ``limit`` is the store's size in bytes (0: none): when it is
    reached, layers that nobody has open go, and where there are none, chunks are not stored.
    """

    def __init__(
        self,
        directory_fd: int,
        *,
        threads: int = 6,
        read_timeout: float = 60,
        boot_id: str,
        limit: int = 0,
    ) -> None:
        self._directory = os.dup(directory_fd)
        self.quota = Quota(self._directory, limit)
        self._boot_id = boot_id
        self._timeout = read_timeout
        self._pool = Pool(threads)
        self._held = Held()
        self._residence: Residence | None = None
        self._lock = threading.Lock()
        self._readers: dict[tuple[str, bytes], tuple[LayerReader, int]] = {}
        self._past = Stats()
        self._closed = False

    def open_layer(
        self, layer: Layer, window: Callable[[int], bytes], fetcher: Fetcher
    ) -> LayerReader:
        """A reader of ``layer``; ``window`` gives the dictionary of a chunk by its number.

        The same layer (diff_id, chunk boundaries and hashes) twice is the same reader, with
        one more source; each call wants a ``close_layer``.  Raises ``IndexFormatError`` for a
        chunk table that cannot be.
        """
        geometry = Geometry(layer)
        source = Source(layer, window, fetcher)
        key = (layer.diff_hex, geometry.digest)
        with self._lock:
            if self._closed:
                raise StoreError("the chunk store is closed")
            known = self._readers.get(key)
            if known is None:
                known = (self._open(layer, geometry, source), 0)
            else:
                known[0].add_source(source)
            self._readers[key] = (known[0], known[1] + 1)
            return known[0]

    def close_layer(self, reader: LayerReader) -> None:
        """Undo one ``open_layer``; after the last one the files are closed."""
        with self._lock:
            for key, (known, users) in list(self._readers.items()):
                if known is not reader:
                    continue
                if users > 1:
                    self._readers[key] = (known, users - 1)
                    return
                del self._readers[key]
                self._past.add(reader.stats)
                touch(self._directory, os.path.dirname(reader.data_path))
                reader.close()
                self._pool.active.set()  # or what was seen of it would be kept

    def readers(self) -> list[LayerReader]:
        """The layers that are open."""
        with self._lock:
            return [reader for reader, _ in self._readers.values()]

    def quiet(self) -> float:
        """Seconds since a read had to wait for data; infinite where none had."""
        if len(self._pool.deadlines):
            return 0.0
        return time.monotonic() - self._pool.demanded

    def drop_pages(self, dropped: Callable[[list[LayerReader]], None]) -> None:
        """Have the kernel keep no pages of data files for long; ``dropped`` hears when it does.

        See ``residence``.
        """
        self._residence = Residence(self.readers, self._pool.active, dropped)
        self._residence.start()

    def stats(self) -> Stats:
        """The sum over all layers since the store was opened."""
        total = Stats()
        with self._lock:
            total.add(self._past)
            for reader, _ in self._readers.values():
                total.add(reader.stats)
        return total

    def close(self) -> None:
        """Fail every read that waits, end the threads, close the files."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for reader, _ in self._readers.values():
                self._past.add(reader.stats)
                reader.close()
            self._readers.clear()
        if self._residence is not None:
            self._residence.stop()
        self._pool.close()
        os.close(self._directory)

    def _open(self, layer: Layer, geometry: Geometry, source: Source) -> LayerReader:
        files = LayerFiles(self._directory, layer.diff_hex, geometry, self._boot_id, self.quota)
        state = LayerState(self._pool, geometry, files, self._held)
        sources = Sources(source)
        fill = StreamFill(state, sources)
        # A fetch gives up a little before the reads that wait for it, so that they hear why.
        patience = self._timeout - min(1.0, self._timeout / 10)
        state.work = FetchWork(state, sources, patience, fill.start)
        reader = LayerReader(state, sources, self._timeout)
        with self._pool.lock:
            self._pool.add(state)
            if state.states.present == len(state.states) and not files.complete:
                state.finish_soon()
        return reader
