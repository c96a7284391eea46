"""Files that a writer left in the index store when it was killed, or its machine lost its power."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time

from clip_runc.linux.files import lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings

_PREFIX, _SUFFIX = ".clip-", ".new"
_YOUNG_SECONDS = 10.0


def new_index(directory: str) -> tuple[int, str]:
    """A new file in ``directory`` for an index that is to be made: descriptor and path.

    No stray for as long as anybody has that descriptor open, a child too.  Raises ``OSError``.
    """
    fd, path = tempfile.mkstemp(suffix=_SUFFIX, prefix=_PREFIX, dir=directory)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd, path


def remove_strays(settings: Settings) -> list[str]:
    """Remove them, unless an index is being added; their paths.

    Whoever writes indexes or references holds the store's lock; a layer's cached index is written
    without one, by a process whose number is in the file's name.
    """
    found = [
        f"{settings.layer_index_dir}/{name}"
        for name in _names(settings.layer_index_dir)
        if name.startswith(".") and not _is_alive(name.rpartition(".")[2])
    ]
    if os.path.isdir(settings.index_dir):
        try:
            with lock(f"{settings.index_dir}/.lock", wait=False):
                found += _unfinished(settings)
                return _remove(found)
        except BlockingIOError:
            pass
    return _remove(found)


def _unfinished(settings: Settings) -> list[str]:
    """Those of ``write_atomic``, of an index that was being made, or copied and checked."""
    return [
        f"{directory}/{name}"
        for directory in (settings.index_dir, settings.reference_dir)
        for name in _names(directory)
        if name.endswith(".tmp")
        or name.startswith(".new.")
        or (name.startswith(_PREFIX) and _is_abandoned(f"{directory}/{name}"))
    ]


def _is_abandoned(path: str) -> bool:
    """Has nobody the file of ``new_index`` open?  One that was just made may not be locked yet."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return time.time() - os.fstat(fd).st_mtime > _YOUNG_SECONDS
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _is_alive(pid: str) -> bool:
    return not pid.isdigit() or os.path.lexists(f"/proc/{pid}")


def _remove(paths: list[str]) -> list[str]:
    gone = []
    for path in paths:
        try:
            os.unlink(path)
        except OSError:  # gone meanwhile, or a disk that takes no writes
            continue
        gone.append(path)
    return gone
