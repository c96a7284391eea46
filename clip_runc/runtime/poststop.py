"""``clip-runc-poststop``: takes a container down when its runtime has.

Run by runc and crun as a poststop hook, with the container's state on stdin, which says nothing
that we would trust.  Never looks into the container's root filesystem.  It exits 0 whatever
happens: runc 1.1 makes a failed hook the failure of ``delete``, and ``clipctl gc`` sweeps.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_STDIN_LIMIT = 1 << 20


def main() -> NoReturn:
    """Entry point of the hook."""
    import _signal  # type: ignore[import-not-found]  # private; signal imports enum

    # the sum of teardown's own limits is below; a process stuck in the kernel is not
    _signal.alarm(35)
    _drain()
    problems = run(sys.argv[1:])
    for problem in problems:
        _say(problem)
    os._exit(0)


def run(arguments: list[str]) -> list[str]:
    """Take down the container that the arguments name; the problems, in words."""
    from clip_runc.config import Settings
    from clip_runc.errors import ClipError
    from clip_runc.runtime.cleanup import take_down
    from clip_runc.runtime.hook import parse_arguments

    parsed = parse_arguments(arguments)
    if parsed is None:
        return ["usage: clip-runc-poststop STATE_DIR RUN_DIR KEY PID:START"]
    state_dir, run_dir, key, creator = parsed
    try:
        return take_down(Settings(state_dir=state_dir, run_dir=run_dir), key, creator)
    except (ClipError, OSError) as error:
        return [str(error)]


def _drain() -> None:
    """Read stdin to its end: the runtime that writes the state must not get EPIPE."""
    left = _STDIN_LIMIT
    try:
        while left > 0 and (data := os.read(0, 65536)):
            left -= len(data)
    except OSError:
        return


def _say(problem: str) -> None:
    try:
        os.write(2, f"clip-runc-poststop: {problem}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        return
