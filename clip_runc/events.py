"""What happened on this machine, a JSON object a line, in ``<run_dir>/events``.

Written by the shim (starts, ends), clipd (its processes, its images) and gc; read by ``clipctl
events`` and ``clipctl metrics``.  On the hot path of the shim, and never a reason for anything to
fail: whatever goes wrong here is forgotten.
"""

from __future__ import annotations

import fcntl
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clip_runc.config import Settings

    Encode = Callable[[object], bytes]

LIMIT = 4 << 20
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def note(
    settings: Settings, event: str, fields: Mapping[str, object], encode: Encode | None = None
) -> None:
    """Append an event.  ``encode`` makes JSON of a dict where importing ``json`` is too dear."""
    line = {"time": timestamp(time.time_ns()), "event": event, **fields}
    try:
        data = (encode or _encode)(line) + b"\n"
        fd = os.open(settings.events_file, _FLAGS, 0o600)
    except (OSError, TypeError, ValueError):
        return
    try:
        os.write(fd, data)  # one write to a file opened for appending: lines never mix
        if os.fstat(fd).st_size > LIMIT:
            _rotate(settings.events_file, fd)
    except OSError:
        return
    finally:
        os.close(fd)


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC, with microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{rest // 1000:06d}Z"


def _encode(line: object) -> bytes:
    import json

    return json.dumps(line, default=str).encode()


def _rotate(path: str, fd: int) -> None:
    """Keep the full file as ``<path>.1``; of several who see that it is full, one does."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    ours, there = os.fstat(fd), os.stat(path, follow_symlinks=False)
    if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
        os.rename(path, f"{path}.1")
