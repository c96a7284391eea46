"""What the rest of the package sees of a layer: read, request, prefetch, put."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial

from clip_runc.errors import DigestMismatch, StoreError
from clip_runc.store.chunk_states import (
    CHECKING,
    FETCHING,
    MISSING,
    PRESENT,
    SUSPECT,
    TO_CHECK,
    TO_FETCH,
)
from clip_runc.store.layer_state import LayerState
from clip_runc.store.patience import Patience
from clip_runc.store.readahead import ReadAhead, bound_of
from clip_runc.store.sources import Fetcher, Source, Sources
from clip_runc.store.stats import Stats
from clip_runc.store.waiters import Waiter
from clip_runc.store.wants import AHEAD, DEMAND, IDLE

__all__ = ["Fetcher", "LayerReader", "Prefetch"]

_UNDER_WAY = (TO_FETCH, TO_CHECK, FETCHING, CHECKING)


class Prefetch:
    """Chunks that are fetched when there is nothing better to do."""

    def __init__(self, state: LayerState, chunks: Iterable[int]) -> None:
        self._state = state
        self._chunks = list(chunks)
        with state.pool.lock:
            for chunk in self._chunks:
                if not state.closed and state.states[chunk] in (MISSING, SUSPECT):
                    state.ask(chunk, IDLE)

    def cancel(self) -> None:
        """Leave out what was not begun, unless a reader or read-ahead wants it as well.

        What another prefetch of the layer wants is left out too.
        """
        with self._state.pool.lock:
            for chunk in self._chunks:
                if self._state.wants.urgency(chunk) == IDLE:
                    self._state.unask(chunk)

    def busy(self) -> bool:
        """Is any of the chunks still waited for?  Not one that failed or cannot be kept."""
        return any(self._state.states[chunk] in _UNDER_WAY for chunk in self._chunks)

    def left(self) -> int:
        """How many of the chunks are not on disk and verified."""
        return sum(self._state.states[chunk] != PRESENT for chunk in self._chunks)


class LayerReader:
    """A layer of ``size`` bytes (its uncompressed tar stream).

    Made by ``ChunkStore.open_layer``.  All methods are for any thread.
    """

    def __init__(self, state: LayerState, sources: Sources, read_timeout: float) -> None:
        self.size = state.geometry.size
        self.chunk_count = len(state.geometry.starts)
        self.read_timeout = read_timeout
        self._state = state
        self._sources = sources
        self._patience = Patience(read_timeout)
        bound = bound_of(sources.best.layer.comp_size, self.chunk_count)
        self._ahead = ReadAhead(state.geometry.starts, bound)
        self._ahead_lock = threading.Lock()
        self.listed: frozenset[int] = frozenset()

    @property
    def data_path(self) -> str:
        """The data file, relative to the store's directory: ``<diff hex>/data`` as a rule.

        Its size is ``size`` rounded up to 512.  Another name when the layer is open at the same
        time with other chunks.  Only a *complete* layer can be read there.
        """
        return f"{self._state.files.name}/data"

    @property
    def complete(self) -> bool:
        """Whether every chunk was verified since boot and is on the disk."""
        return self._state.files.complete

    @property
    def stats(self) -> Stats:
        """What was done for this layer since it was opened."""
        return self._state.stats

    def chunk_at(self, offset: int) -> int:
        """The number of the chunk that holds the byte at ``offset``; -1 beyond the end."""
        if not 0 <= offset < self.size:
            return -1
        return self._state.geometry.span(offset, offset + 1)[0]

    def compressed(self, chunk: int) -> int:
        """How many bytes have to be fetched for ``chunk``; 0 for a layer that is streamed."""
        found = self._sources.best.layer.chunks[chunk]
        return max(0, found.comp_end - found.comp_start)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """Bytes that are here, or None.  One ``fstat`` and one ``pread``: never the network.

        Fewer than ``length`` bytes at the end of the layer, none beyond it.
        """
        end = min(offset + length, self.size)
        if offset < 0 or end <= offset:
            return b""
        found = self._state.read_trusted(offset, end)
        if found is None:
            return None
        self._state.stats.hits += 1
        active = self._state.pool.active
        if not active.is_set():
            active.set()
        if not self._state.files.complete:
            self._advance(offset, end)
        return found

    def request(self, offset: int, length: int) -> Future[bytes]:
        """The bytes, when they are here and verified; clipped as in ``read_cached``.

        The future fails with a ``ClipError`` after ``read_timeout`` at the latest.  Its
        callbacks run in a thread of the store and must be short.
        """
        chunk = max(0, self.chunk_at(offset))
        waiter = Waiter(offset, min(offset + length, self.size), self._patience.seconds(chunk))
        found = self.read_cached(offset, length)
        if found is not None:
            waiter.succeed(found)
            return waiter.future
        waiter.future.add_done_callback(partial(self._note, chunk, waiter))
        self._state.wait_for(waiter, DEMAND)
        self._advance(waiter.offset, waiter.end)
        return waiter.future

    def _note(self, chunk: int, waiter: Waiter, future: Future[bytes]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self._state.stats.count(failures=1)
            self._patience.failed(chunk, waiter.waited())

    def prefetch(self, chunks: Iterable[int] | None = None) -> Prefetch:
        """Fetch ``chunks`` (numbers; default all) in this order, behind everything else.

        A chunk that is on disk from an earlier boot is only verified.
        """
        wanted = range(self.chunk_count) if chunks is None else list(chunks)
        if any(not 0 <= chunk < self.chunk_count for chunk in wanted):
            raise StoreError(f"layer {self._state.files.name}: no such chunk in {list(wanted)!r}")
        return Prefetch(self._state, wanted)

    def put(self, chunk_index: int, data: bytes) -> None:
        """Store the bytes of a chunk that somebody has anyway; raises ``DigestMismatch``."""
        state = self._state
        if not 0 <= chunk_index < self.chunk_count:
            raise StoreError(f"layer {state.files.name}: no chunk {chunk_index}")
        if not state.geometry.holds(chunk_index, data):
            raise DigestMismatch(
                f"layer {state.files.name}, chunk {chunk_index}: not the bytes of this chunk"
            )
        if state.begin(chunk_index):
            state.deliver(chunk_index, data)
            state.settle(chunk_index, data)

    def when_complete(self, callback: Callable[[LayerReader], None]) -> None:
        """Call ``callback`` once when the layer is complete; now, if it is.

        It runs in a thread of the store, or in this one.
        """
        with self._state.pool.lock:
            if not self.complete:
                self._state.on_complete.append(partial(callback, self))
                return
        callback(self)

    def present(self) -> int:
        """How many chunks are on disk and verified."""
        return self._state.states.present

    def lacking(self) -> list[int]:
        """The chunks that are not."""
        table = self._state.states.table
        return [chunk for chunk, state in enumerate(table) if state != PRESENT]

    @property
    def storing(self) -> bool:
        """Whether the last chunk that came could be stored."""
        return self._state.storing

    def activity(self) -> int:
        """A number that grows whenever the data file is read or written for this layer."""
        stats = self.stats
        return stats.hits + stats.waits + stats.chunks + stats.checked

    def drop_pages(self) -> None:
        """Have the kernel forget what it keeps of the data file; what is dirty is written first."""
        data = self._state.files.data
        if data is not None:
            data.forget()

    def add_source(self, source: Source) -> None:
        """Another place where the bytes can be had (for ``ChunkStore``)."""
        self._sources.add(source)

    def close(self) -> None:
        """Fail whoever waits and let go of the files (``ChunkStore.close_layer`` calls it)."""
        self._state.close()

    def _advance(self, offset: int, end: int) -> None:
        state = self._state
        if self.listed and self.chunk_at(offset) in self.listed:
            return  # who reads by a list needs no guesses
        # what is fetched ahead and cannot be stored would be pushed out before it is read
        if state.work.streamed or not state.storing:
            return
        with self._ahead_lock:
            ahead = self._ahead.touch(offset, end)
        if not ahead:
            return
        with state.pool.lock:
            for chunk in ahead:
                if not state.closed and state.states[chunk] in (MISSING, SUSPECT):
                    state.ask(chunk, AHEAD)
