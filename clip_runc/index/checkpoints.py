"""Where a layer is cut into chunks."""

from __future__ import annotations

from typing import NamedTuple

MAX_RAW = 16 << 20
"""Uncompressed bytes that a chunk should not exceed: what one read may have to wait for."""

RAW_TARGET = MAX_RAW // 2
"""Uncompressed bytes after which a gzip chunk ends with its block, whatever it takes compressed."""

CEILING_RAW = 64 << 20
"""Uncompressed bytes that no chunk of ours exceeds; a layer that would need it is streamed."""


class Cut(NamedTuple):
    """A chunk starts at byte ``raw`` of the tar stream and at bit ``bit`` of the blob."""

    raw: int
    bit: int


class Targets:
    """How far a gzip layer's chunks reach: to the first block behind the ``limit``."""

    def __init__(self, target: int, raw_target: int = RAW_TARGET) -> None:
        self._bits = (target - target // 16) * 8  # blocks rarely begin there: rather below
        self._raw_target = raw_target

    def limit(self, start: Cut) -> Cut:
        """Where a chunk should end that begins at ``start``: at either."""
        return Cut(start.raw + self._raw_target, start.bit + self._bits)


NEVER = Cut(1 << 62, 1 << 62)


class Fixed:
    """Cuts every ``step`` bytes of the tar stream, for what needs no restart points."""

    def __init__(self, step: int, *, plain: bool) -> None:
        self._step = step
        self._plain = plain

    def within(self, start: int, end: int) -> list[Cut]:
        """The cuts in ``[start, end)``."""
        first = -(-start // self._step) * self._step
        return [Cut(raw, raw * 8 if self._plain else 0) for raw in range(first, end, self._step)]
