"""Where the compressed bytes of a layer come from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from clip_runc.errors import RegistryError
from clip_runc.index.model import Layer
from clip_runc.store.fetch_plan import runs
from clip_runc.store.stats import Stats


class Fetcher(Protocol):
    """What the store needs of a registry.  Methods are called from several threads."""

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        """Exactly ``end - start`` bytes of a blob, or ``RegistryError``.

        ``deadline`` is a value of ``time.monotonic``.
        """

    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        """The bytes of a blob from ``start`` on; raises ``RegistryError``."""


@dataclass(frozen=True, slots=True)
class Source:
    """A blob with the bytes of a layer: its chunk table, its dictionaries, its registry."""

    layer: Layer
    window: Callable[[int], bytes]
    fetcher: Fetcher

    def read(self, first: int, last: int, deadline: float, stats: Stats) -> list[memoryview]:
        """The compressed bytes of each chunk of ``[first, last]``; raises ``RegistryError``."""
        chunks = self.layer.chunks
        pieces = []
        for low, high in runs(chunks, first, last):
            start, end = chunks[low].comp_start, chunks[high].comp_end
            begun = time.monotonic()
            data = self.fetcher.read_range(self.layer.digest, start, end, deadline=deadline)
            stats.fetched(len(data), time.monotonic() - begun)
            view = memoryview(data)
            pieces += [
                view[chunk.comp_start - start : chunk.comp_end - start]
                for chunk in chunks[low : high + 1]
            ]
        return pieces


class Sources:
    """The sources of a layer; the one that served last is asked first.

    All have the same geometry, and either all are streams or none is.
    """

    def __init__(self, first: Source) -> None:
        self._lock = threading.Lock()
        self._all = [first]

    def add(self, source: Source) -> None:
        """One more place to ask; a known fetcher, or another kind of layer, adds nothing."""
        with self._lock:
            same_kind = (source.layer.codec == "stream") == (self.best.layer.codec == "stream")
            if same_kind and all(source.fetcher is not known.fetcher for known in self._all):
                self._all.append(source)

    @property
    def best(self) -> Source:
        """The source to ask first."""
        return self._all[0]

    def demote(self, source: Source) -> None:
        """``source`` failed: the others come first."""
        with self._lock:
            if len(self._all) > 1 and source in self._all:
                self._all.remove(source)
                self._all.append(source)

    def read(
        self, first: int, last: int, deadline: float, stats: Stats
    ) -> tuple[Source, list[memoryview]]:
        """Ask each source in turn; raises the last one's ``RegistryError``."""
        error: RegistryError | None = None
        for source in list(self._all):
            try:
                return source, source.read(first, last, deadline, stats)
            except RegistryError as failure:
                stats.count(retries=1)
                error = failure
                self.demote(source)
        assert error is not None
        raise error
