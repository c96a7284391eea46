"""Work on several layers at a time, and never on two that would write to one place.

A store's file has the name of a diff_id, a cached layer that of a digest; both may stand in one
manifest more than once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from clip_runc.errors import ClipError

T = TypeVar("T")


class Stopped(ClipError):
    """Work was given up because other work failed; nobody is told."""


class Stop:
    """Whether there is any use in going on."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """There is none."""
        self._event.set()

    def until(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces; raises ``Stopped`` between two of them."""
        for piece in pieces:
            if self._event.is_set():
                raise Stopped("another layer failed")
            yield piece


@dataclass(frozen=True)
class Work(Generic[T]):
    """What has a name in common with other work does not run beside it; the longest goes first."""

    names: frozenset[str]
    size: int
    run: Callable[[Stop], T]


def side_by_side(works: Sequence[Work[T]], at_once: int) -> list[T]:
    """The results, in the order of the works.

    Raises what a work raised, of several the first, when the others have ended or seen ``Stop``.
    """
    stop = Stop()
    if len(works) < 2:
        return [work.run(stop) for work in works]
    waiting = sorted(range(len(works)), key=lambda number: -works[number].size)
    found: list[Future[T] | None] = [None] * len(works)
    running: dict[Future[T], int] = {}
    with ThreadPoolExecutor(at_once, "clip-layer") as pool:
        try:
            while waiting or running:
                for number in _free(works, waiting, set(running.values()), at_once):
                    waiting.remove(number)
                    found[number] = future = pool.submit(works[number].run, stop)
                    running[future] = number
                ended = wait(running, return_when=FIRST_COMPLETED).done
                if any(future.exception() for future in ended):
                    break
                for future in ended:
                    del running[future]
        finally:
            stop.set()
    return _results(found)


def _free(
    works: Sequence[Work[T]], waiting: Sequence[int], running: set[int], at_once: int
) -> list[int]:
    """Which of the waiting may begin now."""
    taken = {name for number in running for name in works[number].names}
    begin: list[int] = []
    for number in waiting:
        if len(running) + len(begin) == at_once:
            break
        if taken.isdisjoint(works[number].names):
            begin.append(number)
            taken |= works[number].names
    return begin


def _results(ended: Sequence[Future[T] | None]) -> list[T]:
    errors = [error for one in ended if one is not None and (error := one.exception())]
    told = [error for error in errors if not isinstance(error, Stopped)]
    if errors:
        raise (told or errors)[0]
    return [one.result() for one in ended if one is not None]
