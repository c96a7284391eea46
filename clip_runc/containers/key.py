"""A container's name on disk.

An id is unique only within one ``--root`` of runc; the key is unique on the machine.
"""

from __future__ import annotations

import os

from clip_runc.errors import BundleError
from clip_runc.images.lean import sha256_hex

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_READABLE = 40
_HASH = 24


def key(root: str, container_id: str) -> str:
    """The directory name of container ``container_id`` below runc's ``root``.

    The beginning of the id, for whoever looks, and 96 bits of a hash over the real path
    of the root and the whole id.  Raises ``BundleError`` for an id that runc would refuse.
    """
    if not container_id or "\0" in container_id or "/" in container_id:
        raise BundleError(f"container id {container_id!r}", "an id is a name, not a path")
    readable = "".join(c if c in _SAFE else "_" for c in container_id[:_READABLE])
    whole = f"{os.path.realpath(root)}\0{container_id}".encode("utf-8", "surrogateescape")
    return f"{readable.lstrip('.-') or '_'}-{sha256_hex(whole)[:_HASH]}"


def is_key(name: str) -> bool:
    """Could ``name`` be one of ours?  Whatever lists a directory asks before it touches."""
    tail = name[-_HASH:]
    return (
        len(name) > _HASH + 1
        and name[-_HASH - 1] == "-"
        and name[0] not in ".-"
        and all(c in "0123456789abcdef" for c in tail)
        and all(c in _SAFE for c in name)
    )
