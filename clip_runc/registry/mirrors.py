"""Which of several places to ask, and which not to for a while."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Client = TypeVar("Client")

SECONDS_DOWN = 30.0
SECONDS_DISTRUSTED = 600.0
_REMEMBERED = 1024


class Mirrors(Generic[Client]):
    """Clients of mirrors in order, each with what it may be asked for.  Thread-safe."""

    def __init__(self, clients: list[tuple[Client, frozenset[str]]]) -> None:
        self._clients = clients
        self._until = [0.0] * len(clients)
        self._recent: deque[tuple[int, str, int, int]] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()

    def able(self, capability: str) -> Iterator[tuple[int, Client]]:
        """Those to ask for this now: number and client."""
        for number, (client, capabilities) in enumerate(self._clients):
            if capability in capabilities and self._until[number] <= time.monotonic():
                yield number, client

    def all(self) -> list[Client]:
        """Every client."""
        return [client for client, _ in self._clients]

    def failed(self, number: int) -> None:
        """Do not ask this one for ``SECONDS_DOWN``."""
        self._until[number] = time.monotonic() + SECONDS_DOWN

    def lied(self, number: int) -> None:
        """Its bytes were wrong: do not ask it for ``SECONDS_DISTRUSTED``."""
        self._until[number] = time.monotonic() + SECONDS_DISTRUSTED

    def served(self, number: int, digest: str, start: int, end: int) -> None:
        """The bytes ``[start, end)`` of a blob came from this one."""
        with self._lock:
            self._recent.append((number, digest, start, end))

    def asked(self, digest: str, start: int, end: int) -> None:
        """The range is wanted.  Whoever asks for what was just served has found it wrong.

        Ranges are verified by their caller, who keeps what is right and asks for nothing twice
        (but a byte that two chunks of a gzip layer share).
        """
        with self._lock:
            again = [x for x in self._recent if x[1] == digest and x[2] <= start and end <= x[3]]
            for served in again:
                self._recent.remove(served)
        for number, *_ in again:
            self.lied(number)
