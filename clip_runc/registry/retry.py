"""How often, and until when, a request is tried."""

from __future__ import annotations

import random
import time

from clip_runc.errors import RegistryError, RegistryUnreachable
from clip_runc.registry.http_errors import Transient

FIRST_DELAY = 0.1
LONGEST_DELAY = 10.0


class Patience:
    """The attempts and the time left for one piece of work; used by one thread.

    ``deadline`` is a value of ``time.monotonic()``, ``None`` for no limit.
    """

    def __init__(self, attempts: int, deadline: float | None = None) -> None:
        self.attempts = attempts
        self.deadline = deadline
        self.failures = 0
        self._free_turn = True

    def failed(self, problem: Transient) -> None:
        """After a failed attempt: wait before the next one, or raise the error for good.

        Exponential with jitter (half to whole), at least as long as the registry asked for;
        not at all when that would reach beyond the deadline.
        """
        if problem.immediate and self._free_turn:
            self._free_turn = False
            return
        self.failures += 1
        if self.failures >= self.attempts:
            raise self._final(problem.error) from None
        delay = min(FIRST_DELAY * 2 ** (self.failures - 1), LONGEST_DELAY)
        delay = max(delay * random.uniform(0.5, 1.0), problem.delay)
        if self.deadline is not None and time.monotonic() + delay >= self.deadline:
            raise self._final(problem.error) from None
        time.sleep(delay)

    def progressed(self) -> None:
        """Much was achieved since the last failure: start counting anew."""
        self.failures = 0
        self._free_turn = True

    def _final(self, error: RegistryError) -> RegistryError:
        if self.failures < 2:
            return error
        return type(error)(f"{error.message}; tried {self.failures} times", error.hint)


def remaining(deadline: float | None, limit: float, host: str) -> float:
    """Seconds until ``deadline``, at most ``limit``.  Raises when it has passed."""
    if deadline is None:
        return limit
    left = deadline - time.monotonic()
    if left <= 0:
        raise RegistryUnreachable(f"registry {host}: no answer before the deadline")
    return min(left, limit)
