"""One layer at work: states, who waits for which chunk, and what happens when one comes.

This is the hard module.  Its invariants:

1. A byte is handed out only if its chunk's hash was right in this process (``deliver``) or
   the chunk is PRESENT and the file did not change since (``read_trusted``).
2. Data is written before its entry in the record, the entry before the state in memory.
3. A chunk in TO_CHECK, or TO_FETCH of a layer that is no stream, is in ``wants``; one in
   CHECKING or FETCHING belongs to exactly one worker (or ``put``, or the stream), which moves
   it out of that state whatever happens.
4. A waiter that lacks chunks is in ``pending`` of each of them, and those are in one of the
   four states above.  So somebody will serve it or fail it.
5. When the file turns out to have been changed, the states move first, then the epoch grows,
   then the file's size and ctime are accepted.  A reader that notes the epoch, looks at the
   states, reads, and looks at the epoch again cannot be fooled.

Locks: ``files.marking`` (disk, milliseconds) before ``pool.lock`` (memory only,
microseconds: the event loop takes it).  Futures are resolved with no lock held, since their
callbacks run then and there.

When you add something: who holds which lock; what if the layer is closed in between; what if
the epoch grew in between; does a state move without its waiters?
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from clip_runc.errors import ClipError, StoreError
from clip_runc.store.chunk_states import (
    CHECKING,
    FETCHING,
    HELD,
    MISSING,
    PRESENT,
    SUSPECT,
    TO_CHECK,
    TO_FETCH,
    ChunkStates,
)
from clip_runc.store.geometry import Geometry
from clip_runc.store.held import Held
from clip_runc.store.layer_files import LayerFiles
from clip_runc.store.stats import Stats
from clip_runc.store.waiters import Waiter
from clip_runc.store.wants import DEMAND, Wants
from clip_runc.store.workers import Job, Pool

log = logging.getLogger(__name__)


class Work(Protocol):
    """How chunks of this layer are got (``fetch_work.FetchWork``)."""

    streamed: bool

    def start_stream(self) -> None:
        """Something is in TO_FETCH of a layer that is streamed; the lock is held."""

    def take(self, chunk: int, urgency: int) -> Job:
        """A job for ``chunk``, which was just taken out of ``wants``; the lock is held."""


class LayerState:
    """Chunks of one layer and the reads that wait for them."""

    work: Work

    def __init__(self, pool: Pool, geometry: Geometry, files: LayerFiles, held: Held) -> None:
        self.pool = pool
        self.geometry = geometry
        self.files = files
        self.held = held
        self.stats = Stats()
        self.states = ChunkStates(files.initial)
        self.wants = Wants()
        self.pending: dict[int, list[Waiter]] = {}
        self.fetching = 0
        self.storing = True  # the last chunk that came could be stored
        self.closed = False
        self.on_complete: list[Callable[[], None]] = []

    # Reading what is there

    def read_trusted(self, offset: int, end: int) -> bytes | None:
        """The bytes if all their chunks are PRESENT.  No lock unless the file was changed."""
        data = self.files.data
        if data is None:
            return None
        epoch = self.files.epoch
        first, last = self.geometry.span(offset, end)
        table = self.states.table
        if table[first] != PRESENT or (
            last != first and table.count(PRESENT, first, last + 1) <= last - first
        ):
            return None
        try:
            found = None if data.changed() else os.pread(data.fd, end - offset, offset)
            if found is not None and len(found) < end - offset:
                found = data.read(offset, end - offset)
        except OSError as error:
            self.files.broken(error)
            found = None
        if found is None or len(found) < end - offset:
            self.doubt(epoch)
            return None
        return found if epoch == self.files.epoch else None

    def doubt(self, epoch: int) -> None:
        """Somebody else changed the data file: whatever it holds must be hashed again."""
        with self.files.marking:
            if epoch != self.files.epoch:
                return
            with self.pool.lock:
                self.states.doubt_all()
            self.files.doubt_all()
            self.files.accept()

    # Asking

    def ask(self, chunk: int, urgency: int) -> None:
        """Have ``chunk`` checked or fetched if it is not here; the lock is held."""
        state = self.states[chunk]
        if state == MISSING:
            self.states.move(chunk, TO_FETCH)
        elif state == SUSPECT:
            self.states.move(chunk, TO_CHECK)
        elif state not in (TO_FETCH, TO_CHECK):
            return
        if self.work.streamed and self.states[chunk] == TO_FETCH:
            self.work.start_stream()
        else:
            self.wants.want(chunk, urgency, self.pool.ticket())
            self.pool.wake()

    def unask(self, chunk: int) -> None:
        """Nobody wants ``chunk`` any more; nothing happens once it was taken.  Lock held."""
        self.wants.drop(chunk)
        if self.states[chunk] == TO_CHECK:
            self.states.move(chunk, SUSPECT)
        elif self.states[chunk] == TO_FETCH:
            self.states.move(chunk, MISSING)

    def wait_for(self, waiter: Waiter, urgency: int) -> None:
        """Serve ``waiter`` as soon as all its chunks are here."""
        first, last = self.geometry.span(waiter.offset, waiter.end)
        with self.pool.lock:
            if urgency == DEMAND:
                self.pool.demanded = time.monotonic()
            closed = self.closed
            if not closed:
                for chunk in range(first, last + 1):
                    self._need(waiter, chunk, urgency)
                if waiter.lacking:
                    self.pool.deadlines.add(waiter)
                    self.pool.wake(0)
                    return
        if closed:
            waiter.fail(self._closed_error())
        else:
            self._finish(waiter)

    def _need(self, waiter: Waiter, chunk: int, urgency: int) -> None:
        state = self.states[chunk]
        if chunk in waiter.parts or state == PRESENT:
            return
        data = self.held.get(self, chunk) if state == HELD else None
        if data is not None:
            waiter.take(chunk, self.geometry.starts[chunk], data)
            return
        self.pending.setdefault(chunk, []).append(waiter)
        waiter.lacking += 1
        self.ask(chunk, urgency)

    def _finish(self, waiter: Waiter) -> None:
        data = self._gather(waiter)
        if data is None:  # something was lost since: ask for it again
            self.wait_for(waiter, 0)
            return
        self.pool.deadlines.discard(waiter)
        self.stats.waited(waiter.waited())
        waiter.succeed(data)

    def _gather(self, waiter: Waiter) -> bytes | None:
        first, last = self.geometry.span(waiter.offset, waiter.end)
        if first == last and first in waiter.parts:
            return waiter.parts[first]
        pieces = []
        for chunk in range(first, last + 1):
            piece = waiter.parts.get(chunk)
            if piece is None:
                low = max(waiter.offset, self.geometry.starts[chunk])
                piece = self.read_trusted(low, min(waiter.end, self.geometry.ends[chunk]))
            if piece is None:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    # What the pool asks

    def top(self) -> tuple[int, int] | None:
        """Urgency and ticket of the most urgent wish."""
        return self.wants.top()

    def take(self) -> Job:
        """A job for the most urgent wish."""
        return self.work.take(*self.wants.pop())

    # What workers tell

    def begin(self, chunk: int) -> bool:
        """Bytes of ``chunk`` came unasked: take it, unless it is here or in other hands."""
        with self.pool.lock:
            if self.closed or self.states[chunk] not in (MISSING, SUSPECT, TO_CHECK, TO_FETCH):
                return False
            self.wants.drop(chunk)
            self.states.move(chunk, FETCHING)
            return True

    def deliver(self, chunk: int, data: bytes) -> None:
        """Verified bytes of ``chunk``, which is FETCHING or CHECKING: serve who waits now."""
        with self.pool.lock:
            waiters = self.pending.pop(chunk, [])
        self._serve(waiters, chunk, data)

    def settle(self, chunk: int, data: bytes) -> None:
        """Store verified bytes of ``chunk``, which is FETCHING, and serve who came since."""
        epoch = self.files.epoch
        if self._changed():  # before our write hides it
            self.doubt(epoch)
            epoch = self.files.epoch
        written = self.files.write(chunk, data)
        with self.files.marking:
            state = self.files.mark(chunk, epoch) if written else HELD
            waiters = self._place(chunk, state, data)
        self._serve(waiters, chunk, data)

    def confirm(self, chunk: int, data: bytes, epoch: int) -> None:
        """``chunk``, which is CHECKING, has the right hash; it was read after ``epoch``."""
        with self.files.marking:
            state = self.files.mark(chunk, epoch)
            # the record cannot be written: what is on disk is good all the same
            waiters = self._place(chunk, PRESENT if state == HELD else state, data)
        self.stats.count(checked=1)
        self._serve(waiters, chunk, data)

    def refute(self, chunk: int, urgency: int) -> None:
        """``chunk``, which is CHECKING, is not what it should be: fetch it."""
        with self.files.marking:
            self.files.clear(chunk)
            with self.pool.lock:
                self.states.move(chunk, MISSING)
                if not self.closed:
                    self.ask(chunk, urgency)

    def fail(self, chunks: Sequence[int], error: ClipError) -> None:
        """No bytes of ``chunks`` will come: whoever waits for one hears why."""
        with self.pool.lock:
            for chunk in chunks:
                if self.states[chunk] in (CHECKING, FETCHING):
                    self.states.move(chunk, MISSING)
            waiters = self._forget_waiters(chunks)
        self.refuse(waiters, error)

    def abandon(self) -> set[Waiter]:
        """Nothing that is in TO_FETCH will come: the waiters to refuse.  The lock is held."""
        lost = [chunk for chunk, state in enumerate(self.states.table) if state == TO_FETCH]
        for chunk in lost:
            self.unask(chunk)
        return self._forget_waiters(lost)

    def refuse(self, waiters: Iterable[Waiter], error: ClipError) -> None:
        """Tell ``waiters`` that they wait in vain; no lock is held."""
        for waiter in waiters:
            self.pool.deadlines.discard(waiter)
            waiter.fail(error)

    def _forget_waiters(self, chunks: Iterable[int]) -> set[Waiter]:
        return {waiter for chunk in chunks for waiter in self.pending.pop(chunk, ())}

    def close(self) -> None:
        """Serve nobody any more.  Workers that are busy with a chunk find nowhere to store it."""
        with self.pool.lock:
            self.closed = True
            self.pool.remove(self)
            self.held.drop_owner(self)
            waiters = self._forget_waiters(list(self.pending))
            for chunk in range(len(self.states)):
                self.unask(chunk)
                if self.states[chunk] == HELD:
                    self.states.move(chunk, MISSING)
        self.files.release()
        self.refuse(waiters, self._closed_error())

    def _closed_error(self) -> StoreError:
        return StoreError(f"layer {self.files.name} was closed while it was read")

    def _changed(self) -> bool:
        data = self.files.data
        try:
            return data is not None and data.writable and data.changed()
        except OSError as error:
            self.files.broken(error)
            return True

    def _place(self, chunk: int, state: int, data: bytes) -> list[Waiter]:
        """Put ``chunk`` into its resting ``state``; returns who waits.  ``marking`` is held."""
        with self.pool.lock:
            self.states.move(chunk, state)
            self.storing = state != HELD
            if state == HELD:
                self.stats.count(store_errors=1)
                self._hold(chunk, data)
            if state == PRESENT and self.states.present == len(self.states):
                self.finish_soon()
            return self.pending.pop(chunk, [])

    def _hold(self, chunk: int, data: bytes) -> None:
        if self.closed:
            self.states.move(chunk, MISSING)
            return
        for owner, old in self.held.put(self, chunk, data):
            assert isinstance(owner, LayerState)
            owner.states.move(old, MISSING)

    def finish_soon(self) -> None:
        """Every chunk is here: sync and say so, on a worker; the lock is held."""
        epoch = self.files.epoch
        self.pool.ready(2, lambda: self._complete(epoch), lambda _: None)

    def _complete(self, epoch: int) -> None:
        if self.files.finish(epoch):
            with self.pool.lock:
                callbacks, self.on_complete = self.on_complete, []
            for callback in callbacks:
                callback()

    def _serve(self, waiters: list[Waiter], chunk: int, data: bytes) -> None:
        start = self.geometry.starts[chunk]
        for waiter in waiters:
            if not waiter.future.done():
                waiter.take(chunk, start, data)
        with self.pool.lock:
            for waiter in waiters:
                waiter.lacking -= 1
            ready = [waiter for waiter in waiters if not waiter.lacking]
        for waiter in ready:
            if not waiter.future.done():
                self._finish(waiter)
