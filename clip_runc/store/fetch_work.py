"""What workers do for a layer: check what is on disk, fetch, inflate, verify, store.

A fetch of several chunks becomes one request and then one ready task a chunk, so that
neighbours are inflated side by side while the next request is on its way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from clip_runc.errors import ClipError, DigestMismatch, LayerFormatError
from clip_runc.index.inflate import inflate_chunk
from clip_runc.store import fetch_plan
from clip_runc.store.chunk_states import CHECKING, FETCHING, TO_CHECK, TO_FETCH
from clip_runc.store.layer_state import LayerState
from clip_runc.store.sources import Source, Sources
from clip_runc.store.wants import DEMAND
from clip_runc.store.workers import Job

log = logging.getLogger(__name__)

TRIES = 3
"""Times a chunk is fetched whose bytes are wrong: the wire may have flipped a bit."""


class FetchWork:
    """The work of one layer.  ``read_timeout`` (seconds) bounds each fetch."""

    def __init__(
        self,
        state: LayerState,
        sources: Sources,
        read_timeout: float,
        start_stream: Callable[[], None],
    ) -> None:
        self.streamed = sources.best.layer.codec == "stream"
        self.start_stream = start_stream
        self._state = state
        self._sources = sources
        self._timeout = read_timeout

    def take(self, chunk: int, urgency: int) -> Job:
        """A job for ``chunk`` and the neighbours that are wanted as well; the lock is held."""
        if self._state.states[chunk] == TO_CHECK:
            self._state.states.move(chunk, CHECKING)
            return self._job(urgency, self._check, chunk, chunk)
        chunks = self._sources.best.layer.chunks
        limits = fetch_plan.DEMAND if urgency == DEMAND else fetch_plan.AHEAD
        first, last = fetch_plan.widen(chunks, chunk, partial(self._joins, urgency), limits)
        for member in range(first, last + 1):
            self._state.wants.drop(member)
            self._state.states.move(member, FETCHING)
        return self._job(urgency, self._fetch, first, last)

    def _joins(self, urgency: int, chunk: int) -> bool:
        wanted = self._state.wants.urgency(chunk)
        # never with something more urgent, which the pool may only have put off for a moment
        return wanted is not None and wanted >= urgency and self._state.states[chunk] == TO_FETCH

    def _job(
        self, urgency: int, run: Callable[[int, int, Job], None], first: int, last: int
    ) -> Job:
        chunks = self._sources.best.layer.chunks[first : last + 1]
        size = sum(
            chunk.raw_end - chunk.raw_start + max(0, chunk.comp_end - chunk.comp_start)
            for chunk in chunks
        )
        return Job(
            queue=self._state,
            urgency=urgency,
            run=partial(run, first, last),
            abort=partial(self._state.fail, range(first, last + 1)),
            parts=len(chunks),
            unit=size // len(chunks),
        )

    def _check(self, chunk: int, _: int, job: Job) -> None:
        try:
            self._verify(chunk, job.urgency)
        finally:
            self._state.pool.fetched(job)
            self._state.pool.release(job)

    def _verify(self, chunk: int, urgency: int) -> None:
        state = self._state
        epoch = state.files.epoch
        data = state.files.read_suspect(chunk)
        if data is not None and state.geometry.holds(chunk, data):
            state.confirm(chunk, data, epoch)
            return
        log.info("layer %s, chunk %d: not on disk as recorded", state.files.name, chunk)
        state.refute(chunk, urgency)

    def _fetch(self, first: int, last: int, job: Job) -> None:
        pool, deadline = self._state.pool, time.monotonic() + self._timeout
        try:
            source, pieces = self._sources.read(first, last, deadline, self._state.stats)
        except ClipError as error:
            pool.fetched(job)
            pool.release(job, job.parts)
            self._state.fail(range(first, last + 1), error)
            return
        except BaseException:
            pool.fetched(job)
            pool.release(job, job.parts)
            raise
        pool.fetched(job)
        for chunk, piece in enumerate(pieces, first):
            pool.ready(
                job.urgency,
                partial(self._finish, chunk, source, piece, deadline, job),
                partial(self._state.fail, (chunk,)),
            )

    def _finish(
        self, chunk: int, source: Source, piece: memoryview, deadline: float, job: Job
    ) -> None:
        try:
            data = self._inflate(chunk, source, piece, deadline)
            self._state.stats.count(chunks=1)
            self._state.deliver(chunk, data)
            self._state.settle(chunk, data)
        except ClipError as error:
            self._state.fail((chunk,), error)
        finally:
            self._state.pool.release(job)

    def _inflate(self, chunk: int, source: Source, piece: memoryview, deadline: float) -> bytes:
        """The verified bytes of ``chunk``; fetches again when they are wrong."""
        for attempt in range(1, TRIES + 1):
            layer = source.layer
            try:
                return inflate_chunk(layer, layer.chunks[chunk], piece, source.window(chunk))
            except (DigestMismatch, LayerFormatError) as error:
                log.warning(
                    "layer %s, chunk %d, try %d of %d: %s",
                    layer.digest, chunk, attempt, TRIES, error.message,
                )  # fmt: skip
                self._state.stats.count(verify_failures=1)
                if attempt == TRIES:
                    raise
            self._sources.demote(source)
            self._state.stats.count(retries=1)
            source, pieces = self._sources.read(chunk, chunk, deadline, self._state.stats)
            piece = pieces[0]
        raise AssertionError("unreachable")
