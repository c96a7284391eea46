"""The worker threads, shared by all layers.

Two kinds of work.  *Ready* tasks need only the CPU (inflate, verify, store): they come first,
since they free memory.  *Fetches* are not made before a worker is free to run them, so that
what is then wanted can be put into one request (``Queue.take``): a demand that comes last is
still served first, and wanted neighbours travel together.

Rules for who gets a worker:

- read-ahead and prefetch never take the last worker, prefetch never more than half;
- one layer never takes them all, so a registry that stalls on one blob stalls no other;
- a fetch older than ``STALLED`` seconds does not count any more: another worker is started
  in its place (at most ``GROWTH`` times the threads), and its memory is forgiven;
- nothing is begun while ``BUDGET`` bytes are in flight, read-ahead while half of them are.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from clip_runc.errors import ClipError, StoreError
from clip_runc.store.waiters import Deadlines
from clip_runc.store.wants import DEMAND, IDLE

log = logging.getLogger(__name__)

STALLED = 5.0
GROWTH = 3
BUDGET = 64 << 20
TICK = 0.2
"""Seconds between two looks at deadlines and stalled fetches, while there are any."""


@dataclass(eq=False, slots=True)
class Job:
    """A fetch (or a check): ``run`` must not raise but through ``abort``.

    It holds ``parts`` times ``unit`` bytes of the budget until ``Pool.release`` was called
    ``parts`` times.
    """

    queue: Queue
    urgency: int
    run: Callable[[Job], None]
    abort: Callable[[ClipError], None]
    parts: int
    unit: int
    started: float = 0.0
    forgiven: bool = False


class Queue(Protocol):
    """What the pool sees of a layer; called with the pool's lock held."""

    fetching: int

    def top(self) -> tuple[int, int] | None:
        """Urgency and ticket of the most urgent fetch."""

    def take(self) -> Job:
        """Make that fetch."""


@dataclass(order=True, slots=True)
class _Ready:
    urgency: int
    ticket: int
    run: Callable[[], None] = field(compare=False)
    abort: Callable[[ClipError], None] = field(compare=False)


class Pool:
    """The workers.  ``lock`` guards them and the states of every chunk; no I/O under it."""

    def __init__(self, threads: int) -> None:
        self.lock = threading.Condition()
        self.deadlines = Deadlines()
        self.in_flight = 0
        self.peak_in_flight = 0
        self.active = threading.Event()  # somebody read or wrote since it was cleared
        self.demanded = -math.inf  # when a read had to wait last (time.monotonic)
        self._threads = max(1, threads)
        self._alive = 0
        self._idle = 0
        self._closed = False
        self._queues: list[Queue] = []
        self._ready: list[_Ready] = []
        self._fetches: dict[Job, None] = {}
        self._tickets = itertools.count()
        self._busy = threading.Event()
        self._ended = threading.Event()
        self._keeper: threading.Thread | None = None

    def add(self, queue: Queue) -> None:
        """Serve ``queue`` from now on; the lock is held."""
        self._queues.append(queue)

    def remove(self, queue: Queue) -> None:
        """Forget ``queue``; the lock is held."""
        if queue in self._queues:
            self._queues.remove(queue)

    def ticket(self) -> int:
        """A number that grows, for first come first served."""
        return next(self._tickets)

    def wake(self, count: int = 1) -> None:
        """There is work for ``count`` workers; the lock is held."""
        self._busy.set()
        if self._keeper is None and not self._closed:
            self._keeper = threading.Thread(target=self._keep, name="store-keeper", daemon=True)
            self._keeper.start()
        woken = min(count, self._idle)
        self._idle -= woken  # here and not where they wake, or two wakes would find one idler
        self.lock.notify(woken)
        for _ in range(min(count - woken, self._allowed() - self._alive)):
            self._start_worker()

    def ready(
        self, urgency: int, run: Callable[[], None], abort: Callable[[ClipError], None]
    ) -> None:
        """Run ``run`` soon; when it raises, log that and run ``abort``."""
        with self.lock:
            heapq.heappush(self._ready, _Ready(urgency, self.ticket(), run, abort))
            self.wake()

    def fetched(self, job: Job) -> None:
        """The bytes of ``job`` are here, or never will be; once for each job."""
        self.active.set()
        with self.lock:
            self._fetches.pop(job, None)
            job.queue.fetching -= 1
            if job.forgiven:
                job.forgiven = False
                self.in_flight += job.parts * job.unit
            self.wake()

    def release(self, job: Job, parts: int = 1) -> None:
        """``parts`` parts of ``job`` are done: their memory is free; after ``fetched``."""
        with self.lock:
            job.parts -= parts
            self.in_flight -= parts * job.unit
            self.wake()

    def close(self, timeout: float = 2.0) -> None:
        """End the threads; one that hangs in a fetch ends when that does."""
        with self.lock:
            self._closed = True
            self._ended.set()
            self._busy.set()
            self.lock.notify_all()
            end = time.monotonic() + timeout
            while self._alive and (left := end - time.monotonic()) > 0:
                self.lock.wait(left)
            keeper = self._keeper
        if keeper is not None:
            keeper.join(timeout)

    def _allowed(self) -> int:
        stalled = sum(job.forgiven for job in self._fetches)
        return min(self._threads + stalled, GROWTH * self._threads)

    def _start_worker(self) -> None:
        self._alive += 1
        threading.Thread(target=self._work, name="store-worker", daemon=True).start()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            run, abort = task
            try:
                run()
            except Exception as error:  # the end of a thread: whoever waits must hear of it
                log.exception("a worker of the store failed")
                abort(StoreError(f"internal error in the chunk store: {error!r}"))
            del run, abort, task  # or an idle thread would keep the last chunk alive

    def _next(self) -> tuple[Callable[[], None], Callable[[ClipError], None]] | None:
        with self.lock:
            while not self._closed and self._alive <= self._allowed():
                if self._ready:
                    ready = heapq.heappop(self._ready)
                    return ready.run, ready.abort
                job = self._pick()
                if job is not None:
                    return partial(job.run, job), job.abort
                self._idle += 1
                self.lock.wait()
            self._alive -= 1
            self.lock.notify_all()
            return None

    def _pick(self) -> Job | None:
        best: tuple[tuple[int, int], Queue] | None = None
        for queue in self._queues:
            top = queue.top()
            if top and (best is None or top < best[0]) and self._may(queue, top[0]):
                best = top, queue
        if best is None:
            return None
        job = best[1].take()
        job.started = time.monotonic()
        job.queue.fetching += 1
        self._fetches[job] = None
        self.in_flight += job.parts * job.unit
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        return job

    def _may(self, queue: Queue, urgency: int) -> bool:
        most = max(1, self._threads - 1)
        if queue.fetching >= most:
            return False
        if urgency == DEMAND:
            return self.in_flight < BUDGET
        later = [job for job in self._fetches if job.urgency > DEMAND and not job.forgiven]
        if urgency == IDLE:
            most = max(1, self._threads // 2)
            later = [job for job in later if job.urgency == IDLE]
        return len(later) < most and self.in_flight < BUDGET // 2

    def _keep(self) -> None:
        """Fail reads whose time is over and replace workers that hang; sleeps when idle."""
        while not self._closed:
            self._busy.wait()
            now = time.monotonic()
            for waiter in self.deadlines.expired(now):
                waiter.fail(waiter.late())
            with self.lock:
                self._forgive(now)
                if not self._fetches and not len(self.deadlines) and not self._closed:
                    self._busy.clear()
            if self._busy.is_set():
                self._ended.wait(TICK)

    def _forgive(self, now: float) -> None:
        for job in self._fetches:
            if not job.forgiven and now - job.started > STALLED:
                job.forgiven = True
                self.in_flight -= job.parts * job.unit
                self.wake()
