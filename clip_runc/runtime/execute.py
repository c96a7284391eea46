"""The only exec of the package: this process becomes the real runtime.

What Python changed in the process at its start must not reach the container: it ignores
SIGPIPE and SIGXFSZ, which exec inherits, and in the C locale it puts LC_CTYPE=C.UTF-8 into the
environment (PEP 538).

``posix`` is what ``os`` is made of; importing ``os`` costs 1.2 ms of every command.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# Set to this process's number before it becomes a runtime that may be a wrapper; an exec keeps it.
_CAME_FROM = b"CLIP_RUNC_CAME_FROM"
_NO_WRAPPERS = ("runc", "crun")
_COERCED = (b"C.UTF-8", b"C.utf8", b"UTF-8")


def execute(path: str, arguments: list[str]) -> NoReturn:
    """Become ``path`` with ``arguments`` (without a program name).  Raises ``OSError``."""
    import _signal  # type: ignore[import-not-found]  # private; signal imports enum

    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    environment = posix.environ
    if path.rpartition("/")[2] not in _NO_WRAPPERS:
        environment = {**environment, _CAME_FROM: b"%d" % posix.getpid()}
    if environment.get(b"LC_CTYPE") in _COERCED and not _was_given(b"LC_CTYPE"):
        environment = {**environment}
        del environment[b"LC_CTYPE"]
    posix.execve(path, [path, *arguments], environment)


def _was_given(name: bytes) -> bool:
    """Was ``name`` in the environment that this process was started with?"""
    try:
        fd = posix.open("/proc/self/environ", posix.O_RDONLY)
    except OSError:
        return False
    try:
        pieces = []
        while piece := posix.read(fd, 1 << 16):
            pieces.append(piece)
    except OSError:
        return False
    finally:
        posix.close(fd)
    return any(line.startswith(name + b"=") for line in b"".join(pieces).split(b"\0"))


def came_back() -> bool:
    """Did the runtime that this process became exec us again?  So it would go on for ever."""
    return posix.environ.get(_CAME_FROM) == b"%d" % posix.getpid()


def pass_through(path: str) -> NoReturn:
    """Become the real runtime with exactly our own arguments."""
    execute(path, sys.argv[1:])
