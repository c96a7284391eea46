"""Layers that were indexed before, in a directory that belongs to whoever builds indexes.

A build that is interrupted, and images that share layers, do not fetch a layer twice.
"""

from __future__ import annotations

import contextlib
import os

from clip_runc.errors import ClipError
from clip_runc.index.clip_layers import check_chunks
from clip_runc.index.layer_index import LayerIndex, cache_name, pack, unpack

_LIMIT = 1 << 30


def load(directory_fd: int | None, digest: str, checkpoint_mib: int) -> LayerIndex | None:
    """The cached layer; ``None`` if there is none, or only a damaged one (which is removed)."""
    if directory_fd is None:
        return None
    name = cache_name(digest, checkpoint_mib)
    try:
        data = _read(name, directory_fd)
    except OSError:
        return None
    try:
        result = unpack(data, digest, checkpoint_mib)
        check_chunks(result.layer, len(result.windows))
    except (ClipError, ValueError, TypeError, KeyError):
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory_fd)
        return None
    return result


def save(directory_fd: int | None, result: LayerIndex, checkpoint_mib: int) -> None:
    """Keep a layer.  A cache that cannot be written costs time later, not this build."""
    if directory_fd is None:
        return
    name = cache_name(result.layer.digest, checkpoint_mib)
    temporary = f".{name}.{os.getpid()}"
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600, dir_fd=directory_fd)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pack(result, checkpoint_mib))
            os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        except OSError:
            os.unlink(temporary, dir_fd=directory_fd)


def _read(name: str, directory_fd: int) -> bytes:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(name, flags, dir_fd=directory_fd), "rb") as file:
        return file.read(_LIMIT)
