"""Pages of data files that the kernel need not keep: whoever reads through FUSE has a copy.

A chunk that was fetched lies in the page cache as part of its data file, and a moment later once
more as part of the file that was read.  When a layer has been quiet for a while, or busy for long,
its data file's pages are given back.  Not at once: what a start reads next often lies in a chunk
that is here already, and a page that was just written is not on the disk yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from clip_runc.store.reader import LayerReader

QUIET = 2.0
"""Seconds without a read or a fetch, after which pages go."""

LONGEST = 10.0
"""Seconds after which they go all the same."""

_TICK = 0.5
_PASSES = 2  # the first has the kernel write what is dirty, the next finds it clean


class _Seen:
    """What was seen of a reader: its counters, since when, and how often pages are still to go."""

    def __init__(self, now: float) -> None:
        self.activity = -1
        self.since = self.dropped = now
        self.passes = 0

    def due(self, activity: int, now: float) -> bool:
        """Are pages to be given back now?"""
        if activity != self.activity:
            self.activity, self.since, self.passes = activity, now, _PASSES
        quiet = now - self.since >= QUIET
        if not self.passes or not (quiet or now - self.dropped >= LONGEST):
            return False
        self.since = self.dropped = now
        self.passes -= 1
        return True


class Residence:
    """A thread that sleeps until ``active`` is set, and again when nothing is left to do.

    ``readers`` gives the layers that are open; ``dropped`` hears of those whose pages went.
    """

    def __init__(
        self,
        readers: Callable[[], Iterable[LayerReader]],
        active: threading.Event,
        dropped: Callable[[list[LayerReader]], None],
    ) -> None:
        self._readers = readers
        self._active = active
        self._dropped = dropped
        self._seen: dict[LayerReader, _Seen] = {}
        self._ended = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="store-residence", daemon=True).start()

    def stop(self) -> None:
        """End the thread, soon."""
        self._ended = True
        self._active.set()

    def _run(self) -> None:
        while not self._ended:
            self._active.wait()
            self._active.clear()
            while not self._ended and self.look(time.monotonic()):
                time.sleep(_TICK)

    def look(self, now: float) -> bool:
        """Give back what is due; whether anything will be later."""
        readers = list(self._readers())
        self._seen = {one: self._seen.get(one) or _Seen(now) for one in readers}
        due = [one for one, seen in self._seen.items() if seen.due(one.activity(), now)]
        for reader in due:
            reader.drop_pages()
        if due:
            self._dropped(due)
        return any(seen.passes for seen in self._seen.values())
