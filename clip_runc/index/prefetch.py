"""Prefetch lists: which chunks a command read, in the order in which it wanted them.

An index has one list for each command that was recorded.  A list is no part of the identity
of an index (``ClipFile.content_digest``): it says when bytes are fetched, never which.
The section PREF is JSON: ``[{"command": [argument, …], "ranges": [[layer, first, last, phase],
…]}, …]``, the lists sorted by command.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from clip_runc.errors import IndexFormatError
from clip_runc.index.model import Layer

MAX_LISTS = 64
MAX_TEXT = 8192
"""Characters in the arguments of a command."""

QUIET = 2.0
"""Seconds in which nothing is wanted that end a phase: the start, say, and the first request."""

FIRST_WINDOW, LAST_WINDOW = 4 << 20, 32 << 20
"""Compressed bytes within which the order of chunks gives way to larger requests; doubled from
one window to the next, since in the beginning everything waits for the next chunk."""


class Range(NamedTuple):
    """Chunks ``first`` to ``last`` of a layer (its place in the image), wanted in ``phase``."""

    layer: int
    first: int
    last: int
    phase: int = 0


class PrefetchList(NamedTuple):
    """What ``command`` (its arguments, as ``key_of`` shortens them) wants, in order."""

    command: tuple[str, ...]
    ranges: tuple[Range, ...]


class Touch(NamedTuple):
    """A chunk was wanted for the first time ``seconds`` after the start.

    ``until``: when its bytes were there, where somebody had to wait for them.
    """

    seconds: float
    layer: int
    chunk: int
    until: float = 0.0


def make_list(
    command: Sequence[str], touches: Iterable[Touch], layers: Sequence[Layer]
) -> PrefetchList:
    """The list for ``command`` from what was seen of it; each chunk once."""
    ranges: list[Range] = []
    for phase, group in enumerate(_phases(touches)):
        for window in _windows(group, layers):
            ranges += _join(window, phase)
    return PrefetchList(tuple(command), tuple(ranges))


def _phases(touches: Iterable[Touch]) -> list[list[Touch]]:
    seen: set[tuple[int, int]] = set()
    found: list[list[Touch]] = []
    busy = 0.0
    for touch in sorted(touches):
        if not found or touch.seconds - busy > QUIET:
            found.append([])
        busy = max(busy, touch.seconds, touch.until)
        if touch[1:3] not in seen:
            seen.add(touch[1:3])
            found[-1].append(touch)
    return [group for group in found if group]


def _windows(group: Sequence[Touch], layers: Sequence[Layer]) -> list[list[tuple[int, int]]]:
    found: list[list[tuple[int, int]]] = [[]]
    limit, size = FIRST_WINDOW, 0
    for touch in group:
        chunk = layers[touch.layer].chunks[touch.chunk]
        size += max(0, chunk.comp_end - chunk.comp_start)
        found[-1].append((touch.layer, touch.chunk))
        if size >= limit:
            limit, size = min(limit * 2, LAST_WINDOW), 0
            found.append([])
    return found


def _join(window: Iterable[tuple[int, int]], phase: int) -> list[Range]:
    """Neighbours become one range; ranges stay in the order of their first chunk's time."""
    order = {place: number for number, place in enumerate(window)}
    found: list[tuple[int, Range]] = []
    for layer, chunk in sorted(order):
        time = order[layer, chunk]
        if found and found[-1][1].layer == layer and found[-1][1].last + 1 == chunk:
            first, before = found[-1]
            found[-1] = min(first, time), before._replace(last=chunk)
        else:
            found.append((time, Range(layer, chunk, chunk, phase)))
    return [one for _, one in sorted(found)]


def merge(lists: Iterable[PrefetchList], new: PrefetchList) -> list[PrefetchList]:
    """``lists`` with ``new`` in place of the one for the same command, sorted by command."""
    kept = [one for one in lists if one.command != new.command]
    return sorted([*kept, new])


def choose(lists: Sequence[PrefetchList], command: Sequence[str]) -> PrefetchList | None:
    """The list for ``command``: its own, or of another call of the same program.

    Of several calls the one that has most arguments in common from the left.
    """
    wanted = tuple(command)
    best, most = None, 0
    for one in lists:
        if one.command == wanted:
            return one
        common = 0
        for ours, theirs in zip(one.command, wanted, strict=False):
            if ours != theirs:
                break
            common += 1
        if common > most:
            best, most = one, common
    return best


def listed_bytes(one: PrefetchList, layers: Sequence[Layer]) -> int:
    """The compressed bytes of all chunks of a list."""
    return sum(
        max(0, chunk.comp_end - chunk.comp_start)
        for part in one.ranges
        for chunk in layers[part.layer].chunks[part.first : part.last + 1]
    )


def pack_prefetch(lists: Iterable[PrefetchList]) -> bytes:
    """The section PREF."""
    rows = [{"command": one.command, "ranges": one.ranges} for one in sorted(lists)]
    return json.dumps(rows, separators=(",", ":"), sort_keys=True).encode()


def unpack_prefetch(text: bytes, layers: Sequence[Layer]) -> list[PrefetchList]:
    """The prefetch lists, each range inside its layer; raises ``IndexFormatError``."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        raise IndexFormatError("the prefetch lists of a .clip file are no JSON") from None
    if not isinstance(rows, list) or len(rows) > MAX_LISTS:
        raise IndexFormatError(f"a .clip file has no list of at most {MAX_LISTS} prefetch lists")
    return [_unpack(row, layers) for row in rows]


def _unpack(row: Any, layers: Sequence[Layer]) -> PrefetchList:
    command = row.get("command") if isinstance(row, dict) else None
    ranges = row.get("ranges") if isinstance(row, dict) else None
    if not isinstance(command, list) or not isinstance(ranges, list):
        raise IndexFormatError("a prefetch list of a .clip file has no command or no ranges")
    texts = all(isinstance(text, str) for text in command)
    if not texts or sum(map(len, command)) > MAX_TEXT:
        raise IndexFormatError("a prefetch list of a .clip file is for no command")
    found = tuple(_range(one, layers) for one in ranges)
    # each chunk once, or a short list could have us fetch for ever
    chunks = sum(one.last - one.first + 1 for one in found)
    if chunks > sum(len(layer.chunks) for layer in layers):
        raise IndexFormatError("a prefetch list of a .clip file names chunks again and again")
    return PrefetchList(tuple(command), found)


def _range(row: Any, layers: Sequence[Layer]) -> Range:
    numbers = isinstance(row, list) and len(row) == 4 and all(type(n) is int for n in row)
    if not numbers or not 0 <= row[0] < len(layers) or not 0 <= row[3] < 1 << 16:
        raise IndexFormatError("a prefetch list of a .clip file names a layer that is not there")
    layer, first, last, phase = row
    if not 0 <= first <= last < len(layers[layer].chunks):
        raise IndexFormatError("a prefetch list of a .clip file names chunks that are not there")
    return Range(layer, first, last, phase)
