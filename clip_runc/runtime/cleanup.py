"""Taking down the container that one process prepared, and no other of the same id.

runc forgets a container before it runs the poststop hooks, so an id can be in use again while
the old container's hook or finisher still runs.  Each of those carries the creator (pid and start
time of the shim) and looks, under the container's lock, whether the state is still that one's.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clip_runc.config import Settings


def take_down(
    settings: Settings,
    key: str,
    creator: tuple[int, int],
    unless: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Remove what ``creator`` prepared under ``key``; the problems, in words.

    Idempotent.  Nothing is done where the state is another's by now, or ``unless`` says so
    (asked under the lock).
    """
    from clip_runc.containers import state as states

    # what is there now need not be asked for the lock, nor the modules of a teardown
    if not states.exists(settings, key) or unless():
        return []
    from clip_runc.containers.teardown import forget_lock, sweep
    from clip_runc.linux.files import lock

    try:
        with lock(states.lock_path(settings, key)):
            state = states.load(settings, key)
            if (state is not None and tuple(state.creator) != creator) or unless():
                return []
            problems = sweep(settings, key)
            if not states.exists(settings, key):
                forget_lock(settings, key)
            return problems
    except FileNotFoundError:  # the lock directory: a reboot took /run away
        return []


def run(
    settings: Settings,
    paths: list[str],
    *,
    key: str,
    root: str,
    container: str,
    creator: Sequence[int],
) -> None:
    """As a process that clipd starts when a create has ended whose container nobody knows."""
    from clip_runc.containers.key import is_key
    from clip_runc.containers.state import known_to_runc

    if not is_key(key):
        return
    pid, started = creator
    problems = take_down(settings, key, (pid, started), lambda: known_to_runc(root, container))
    for problem in problems:
        os.write(2, f"clip-runc: {container}: {problem}\n".encode("utf-8", "surrogateescape"))
