"""Which real runtime to become.

In this order: ``$CLIP_RUNC_RUNTIME``, the key ``runtime`` of the configuration file, what the
launcher was written with, ``runc``.  A name is looked up in PATH and then where distributions
keep runtimes (PATH of a service often lacks the sbin directories); whatever is clip-runc itself,
under any name, is skipped, so that it can be installed as ``runc`` before the real one.

Runs on every runc command.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Written into the head of every launcher of ours (runtime/launcher.py).
MARKER = b"clip-runc launcher"
_HEAD = 512
_DEFAULT = "runc"
_DIRECTORIES = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)


class RuntimeNotFound(Exception):
    """There is no runtime to become; the message says where it was looked for."""


def find_runtime(baked: str = "", ourselves: Sequence[str] = ()) -> str:
    """The path of the real runtime.  Raises ``RuntimeNotFound``.

    ``baked`` is the launcher's own idea of it, ``ourselves`` are paths of this program.
    """
    named = _from_environment() or _configured() or baked or _DEFAULT
    if "/" in named:
        if not _is_usable(named, _identities(ourselves)):
            reason = "is clip-runc itself" if os.access(named, os.X_OK) else "cannot be executed"
            raise RuntimeNotFound(f"the real runtime {named} {reason}")
        return named
    return _search(named, ourselves)


def _from_environment() -> str:
    """Ignored where a set-uid program called us: its caller chose the environment."""
    if os.getuid() != os.geteuid():
        return ""
    return os.environ.get("CLIP_RUNC_RUNTIME", "")


def _configured() -> str:
    """The configured runtime; ``""`` where the file has none, or says ``runc`` as the default does.

    A file that cannot be used stops none of the commands that pass through.
    """
    from clip_runc.runtime.plain_config import load_settings, read_values

    values = read_values()
    if values is None:
        from clip_runc.errors import ConfigError

        try:
            values = {"runtime": load_settings().runtime}
        except ConfigError:
            return ""
    value = values.get("runtime", _DEFAULT)
    return value if isinstance(value, str) and value != _DEFAULT else ""


def _identities(paths: Sequence[str]) -> set[tuple[int, int]]:
    found = set()
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return found


def _is_usable(path: str, ourselves: set[tuple[int, int]]) -> bool:
    """Is it an executable file, and not this program?"""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        # one that may be executed and not read is none of ours: the launcher is readable
        return os.access(path, os.X_OK) and os.path.isfile(path)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) in ourselves or status.st_mode & 0o170000 != 0o100000:
            return False
        return MARKER not in os.read(fd, _HEAD) and os.access(path, os.X_OK)
    except OSError:
        return False
    finally:
        os.close(fd)


def _search(name: str, ourselves: Sequence[str]) -> str:
    known = _identities(ourselves)
    path = os.environ.get("PATH", "")
    # an empty or relative entry would make the working directory choose what root runs
    given = [directory for directory in path.split(":") if directory.startswith("/")]
    for directory in (*given, *_DIRECTORIES):
        candidate = f"{directory}/{name}"
        if _is_usable(candidate, known):
            return candidate
    raise RuntimeNotFound(f"no {name} in PATH nor in {', '.join(_DIRECTORIES)}")
