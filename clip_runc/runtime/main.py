"""``clip-runc``: every runc command comes through here.

A command that is none of ours becomes the real runtime at once, with nothing imported but
``gc``, ``posix``, ``sys`` and three small modules of this package
(tests/unit/runtime/test_main.py counts them).
"""

from __future__ import annotations

import sys

from clip_runc.runtime.argv import parse
from clip_runc.runtime.execute import came_back, pass_through
from clip_runc.runtime.locate import RuntimeNotFound, find_runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def main(
    runtime: str = "", launcher: str = "", load: Callable[[str], None] = lambda _: None
) -> NoReturn:
    """Become the runtime.  ``runtime`` and ``launcher`` are what the launcher knows.

    ``load`` may have the modules ready that a command of ours needs (``runtime/preload.py``).
    """
    invocation = parse(sys.argv)
    ourselves = [path for path in (launcher, sys.argv[0]) if "/" in path]
    try:
        real = find_runtime(runtime, ourselves)
        if came_back():
            raise RuntimeNotFound(
                f"the real runtime {real} leads back to clip-runc; see docs/gpu.md"
            )
        if invocation.command:
            load(invocation.command)
            from clip_runc.runtime import lifecycle

            lifecycle.handle(invocation, real, launcher or _resolved(sys.argv[0]))
        pass_through(real)
    except (RuntimeNotFound, OSError) as error:
        from clip_runc.runtime.report import report_error

        report_error(invocation, f"clip-runc: {error}")
        sys.exit(1)


def _resolved(path: str) -> str:
    """An absolute path of this program, or ``""``: the hook may stand beside it."""
    return path if path.startswith("/") else ""


if __name__ == "__main__":
    main()
