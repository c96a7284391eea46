"""The chunks of one layer that wait for a worker, most urgent first.  The caller locks."""

from __future__ import annotations

import heapq

DEMAND, AHEAD, IDLE = range(3)
"""How urgent: a reader waits; a reader is near; some day (prefetch)."""


class Wants:
    """A priority queue of chunks in which a chunk can become more urgent, or be dropped."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int]] = []
        self._best: dict[int, tuple[int, int]] = {}

    def want(self, chunk: int, urgency: int, ticket: int) -> None:
        """Queue ``chunk``, or make it more urgent; ``ticket`` orders equals."""
        known = self._best.get(chunk)
        if known is None or urgency < known[0]:
            self._best[chunk] = (urgency, ticket)
            heapq.heappush(self._heap, (urgency, ticket, chunk))

    def urgency(self, chunk: int) -> int | None:
        """How urgent ``chunk`` is, None when it is not queued."""
        known = self._best.get(chunk)
        return None if known is None else known[0]

    def top(self) -> tuple[int, int] | None:
        """Urgency and ticket of the next chunk."""
        while self._heap:
            urgency, ticket, chunk = self._heap[0]
            if self._best.get(chunk) == (urgency, ticket):
                return urgency, ticket
            heapq.heappop(self._heap)  # promoted or dropped since
        return None

    def pop(self) -> tuple[int, int]:
        """Take out the next chunk; returns it and its urgency.  ``top`` said there is one."""
        if self.top() is None:
            raise IndexError("nothing is wanted")
        urgency, _, chunk = heapq.heappop(self._heap)
        del self._best[chunk]
        return chunk, urgency

    def drop(self, chunk: int) -> None:
        """``chunk`` is not wanted any more; nothing happens when it was not."""
        self._best.pop(chunk, None)

    def __len__(self) -> int:
        return len(self._best)
