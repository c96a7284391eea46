"""Which real runtime to become.

In this order: ``$CLIP_RUNC_RUNTIME``, the key ``runtime`` of the configuration file, what the
launcher was written with, ``runc``.  A name is looked up in PATH and then where distributions
keep runtimes (PATH of a service often lacks the sbin directories); whatever is clip-runc itself,
under any name, is skipped, so that it can be installed as ``runc`` before the real one.

Runs on every runc command, so it imports neither ``os`` nor, where no file of ours speaks of a
runtime, the settings.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Written into the head of every launcher of ours (runtime/launcher.py).
MARKER = b"clip-runc launcher"
_HEAD = 512
_DEFAULT = "runc"
# as in clip_runc.config, which costs more to import than to repeat
CONFIG_FILE = "/etc/clip-runc/config.toml"
CONFIG_DIR = "/etc/clip-runc/config.d"
_ALL_IDS = [b"0", b"0", b"4294967295"]
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
            executable = posix.access(named, posix.X_OK)
            reason = "is clip-runc itself" if executable else "cannot be executed"
            raise RuntimeNotFound(f"the real runtime {named} {reason}")
        return named
    return _search(named, ourselves)


def _from_environment() -> str:
    """Ignored where a set-uid program called us: its caller chose the environment."""
    return "" if posix.getuid() != posix.geteuid() else _variable("CLIP_RUNC_RUNTIME")


def _variable(name: str) -> str:
    return posix.environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")


def _configured() -> str:
    """The configured runtime; ``""`` where the file has none, or says ``runc`` as the default does.

    A file that cannot be used stops none of the commands that pass through.
    """
    if not _may_be_configured():
        return ""
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


def _may_be_configured() -> bool:
    """Is there a file of settings that has the word in it?"""
    named = _variable("CLIP_RUNC_CONFIG") if posix.getuid() == posix.geteuid() else ""
    if named:
        return b"runtime" in _read(named)
    if posix.geteuid() or _read("/proc/self/uid_map").split() != _ALL_IDS:
        return True  # an ordinary user may have a file of their own: clip_runc.personal
    if b"runtime" in _read(CONFIG_FILE):
        return True
    try:
        names = posix.listdir(CONFIG_DIR)
    except OSError:
        return False
    return any(b"runtime" in _read(f"{CONFIG_DIR}/{name}") for name in names)


def _read(path: str) -> bytes:
    """The first MiB of a file; one that cannot be read has nothing to say."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return posix.read(fd, 1 << 20)
    except OSError:
        return b""
    finally:
        posix.close(fd)


def _identities(paths: Sequence[str]) -> set[tuple[int, int]]:
    found = set()
    for path in paths:
        try:
            status = posix.stat(path)
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return found


def _is_usable(path: str, ourselves: set[tuple[int, int]]) -> bool:
    """Is it an executable file, and not this program?"""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError:
        # one that may be executed and not read is none of ours: the launcher is readable
        return posix.access(path, posix.X_OK) and _is_file(posix.stat(path))
    try:
        status = posix.fstat(fd)
        if (status.st_dev, status.st_ino) in ourselves or not _is_file(status):
            return False
        return MARKER not in posix.read(fd, _HEAD) and posix.access(path, posix.X_OK)
    except OSError:
        return False
    finally:
        posix.close(fd)


def _is_file(status: posix.stat_result) -> bool:
    return status.st_mode & 0o170000 == 0o100000


def _search(name: str, ourselves: Sequence[str]) -> str:
    known = _identities(ourselves)
    path = _variable("PATH")
    # an empty or relative entry would make the working directory choose what root runs
    given = [directory for directory in path.split(":") if directory.startswith("/")]
    for directory in (*given, *_DIRECTORIES):
        candidate = f"{directory}/{name}"
        if _is_usable(candidate, known):
            return candidate
    raise RuntimeNotFound(f"no {name} in PATH nor in {', '.join(_DIRECTORIES)}")
