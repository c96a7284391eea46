"""Verified chunks that could not be stored: a few are kept in memory.

Without it each read of 128 KiB from a store that is full would fetch the whole chunk again.
The caller locks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

CHUNKS = 8
BYTES = 64 << 20


class Held:
    """The last few unstorable chunks, by (owner, chunk)."""

    def __init__(self, chunks: int = CHUNKS, limit: int = BYTES) -> None:
        self._chunks = chunks
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[tuple[Hashable, int], bytes] = OrderedDict()

    def get(self, owner: Hashable, chunk: int) -> bytes | None:
        """The bytes, and they are young again."""
        data = self._kept.get((owner, chunk))
        if data is not None:
            self._kept.move_to_end((owner, chunk))
        return data

    def put(self, owner: Hashable, chunk: int, data: bytes) -> list[tuple[Hashable, int]]:
        """Keep ``data``; returns what was pushed out.  One chunk is kept whatever its size."""
        self._kept[owner, chunk] = data
        self._size += len(data)
        pushed = []
        while len(self._kept) > 1 and (len(self._kept) > self._chunks or self._size > self._limit):
            key, old = self._kept.popitem(last=False)
            self._size -= len(old)
            pushed.append(key)
        return pushed

    def drop_owner(self, owner: Hashable) -> None:
        """Forget what ``owner`` kept here."""
        for key in [key for key in self._kept if key[0] == owner]:
            self._size -= len(self._kept.pop(key))
