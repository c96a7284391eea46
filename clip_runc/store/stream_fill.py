"""Layers that can only be read from their start: streamed into the store once.

One thread a layer, started by the first read that misses.  It runs to the end of the blob,
and again when chunks that it had passed were lost meanwhile and are wanted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

from clip_runc.errors import (
    ClipError,
    DigestMismatch,
    LayerFormatError,
    RegistryError,
    StoreError,
)
from clip_runc.index.inflate import stream_decoder
from clip_runc.store.chunk_states import CHECKING, PRESENT, TO_FETCH
from clip_runc.store.layer_state import LayerState
from clip_runc.store.sources import Source, Sources

log = logging.getLogger(__name__)

TRIES = 3
"""Times a stream is taken up again, in one pass, or begun anew, when its bytes are wrong."""


class StreamFill:
    """Fills ``state`` from the stream of a source."""

    def __init__(self, state: LayerState, sources: Sources) -> None:
        self._state = state
        self._sources = sources
        self._running = False

    def start(self) -> None:
        """Have the thread run; the pool's lock is held."""
        if not self._running:
            self._running = True
            threading.Thread(target=self._run, name="store-stream", daemon=True).start()

    def _run(self) -> None:
        error: ClipError | None = None
        try:
            while self._wanted():
                self._pass_with_retries()
        except ClipError as failure:
            error = failure
        except Exception as failure:  # the end of a thread: whoever waits must hear of it
            log.exception("streaming layer %s failed", self._state.files.name)
            error = StoreError(f"internal error in the chunk store: {failure!r}")
        if error is not None:
            self._give_up(error)

    def _wanted(self) -> bool:
        """Whether another pass is needed; when not, the thread is as good as ended."""
        with self._state.pool.lock:
            states = self._state.states.table
            self._running = TO_FETCH in states and not self._state.closed
            return self._running

    def _give_up(self, error: ClipError) -> None:
        with self._state.pool.lock:
            self._running = False
            # in one go: a read that comes after this starts another thread
            waiters = self._state.abandon()
        self._state.refuse(waiters, error)

    def _pass_with_retries(self) -> None:
        for attempt in range(1, TRIES + 1):
            source = self._sources.best
            try:
                self._pass(source)
                return
            except (DigestMismatch, LayerFormatError, RegistryError) as error:
                log.warning(
                    "streaming layer %s, try %d of %d: %s",
                    source.layer.digest, attempt, TRIES, error.message,
                )  # fmt: skip
                if attempt == TRIES:
                    raise
                self._sources.demote(source)
                self._state.stats.count(
                    retries=1, verify_failures=not isinstance(error, RegistryError)
                )

    def _pass(self, source: Source) -> None:
        geometry = self._state.geometry
        kept = bytearray()
        chunk, last = 0, len(geometry.starts) - 1
        for piece in self._pieces(source):
            kept += piece
            while chunk <= last and len(kept) >= geometry.length(chunk):
                size = geometry.length(chunk)
                self._arrived(chunk, bytes(memoryview(kept)[:size]))
                del kept[:size]
                chunk += 1
            if self._state.closed:
                return
        if chunk <= last:
            raise LayerFormatError(f"layer {source.layer.digest}: ends before its chunk {chunk}")

    def _pieces(self, source: Source) -> Iterator[bytes]:
        """The uncompressed layer, in pieces; a connection that breaks is taken up again."""
        layer = source.layer
        decoder = stream_decoder(layer.compression, layer.raw_size)
        fed, broken = 0, 0
        while fed < layer.comp_size:
            try:
                stream = source.fetcher.stream(layer.digest, layer.comp_size, fed)
                self._state.stats.count(requests=1)
                for data in stream:
                    fed += len(data)
                    self._state.stats.count(fetched_bytes=len(data))
                    yield from decoder.pieces(data)
                if fed < layer.comp_size:
                    raise LayerFormatError(
                        f"layer {layer.digest}: {fed} bytes instead of {layer.comp_size}"
                    )
            except RegistryError:
                broken += 1
                if broken >= TRIES:
                    raise
                self._state.stats.count(retries=1)
        decoder.finish()

    def _arrived(self, chunk: int, data: bytes) -> None:
        state = self._state
        if state.states[chunk] in (PRESENT, CHECKING):
            return
        if not state.geometry.holds(chunk, data):
            raise DigestMismatch(
                f"layer {state.files.name}, chunk {chunk}: the bytes do not match the index",
                "the registry or a proxy served damaged bytes, or the index is of another layer",
            )
        if state.begin(chunk):
            state.stats.count(chunks=1)
            state.deliver(chunk, data)
            state.settle(chunk, data)
