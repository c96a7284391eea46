"""A directory of logins that others keep up to date, Kubernetes' pull secrets above all.

Each file is a docker ``config.json``; of it ``auths`` count, since a secret may come from a tenant
and must not name a program of this host.  Standard library only: clipd's supervisor imports it.
"""

from __future__ import annotations

import json
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = ".dockerconfigjson"
"""The key of a Secret of type kubernetes.io/dockerconfigjson, hence a file's name in its volume."""
_NAMES = (SECRET, "config.json")
_FILES = 1024
_SIZE = 1 << 20


def read(directory: str, warn: Callable[[str], None]) -> dict[str, object]:
    """The ``auths`` of all files as one; of an entry that is there twice, the last one.

    The order is that of names.  A file that others than root may write, or that is no docker
    config, is skipped with a word to ``warn``.  A directory that is not there has none.
    """
    merged: dict[str, object] = {}
    for path in _files(directory):
        try:
            auths = _auths(path)
        except FileNotFoundError:
            continue  # it is being replaced
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            warn(f"{path}: {reason}")
            continue
        merged.update(auths)
    return {"auths": merged}


def _files(directory: str) -> Iterator[str]:
    """The files there and, of a directory there, those that a volume of a Secret has."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names[:_FILES]:
        path = f"{directory}/{name}"
        if name == SECRET:
            yield path
        elif name[0] == ".":
            continue  # half-written, or the kubelet's ..data
        elif os.path.isdir(path):
            yield from (f"{path}/{known}" for known in _NAMES)
        else:
            yield path


def _auths(path: str) -> dict[str, object]:
    """Raises ``OSError``, and ``ValueError`` with the reason; what is secret is in neither."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            raise ValueError("others than root can write it")
        data = b""
        while len(data) <= _SIZE and (piece := os.read(fd, _SIZE)):
            data += piece
    finally:
        os.close(fd)
    if len(data) > _SIZE:
        raise ValueError(f"larger than {_SIZE} bytes")
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    auths = config.get("auths") if isinstance(config, dict) else None
    if not isinstance(auths, dict):
        raise ValueError("no docker config with auths")
    return auths
