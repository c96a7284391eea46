"""All that can be seen of a directory tree, path by path, and how two trees differ.

Paths are bytes, relative to the root, which is ``b""``.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple


class Status(NamedTuple):
    """One path.  ``first``: the first path, in the order of the walk, that has the same inode.

    ``content``: a file's sha256, a link's target, a directory's names.  ``size`` of
    directories is 0: it says how a file system stores them.
    """

    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    nlink: int
    rdev: int
    first: bytes
    content: object
    xattrs: dict[str, bytes]

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


Tree = dict[bytes, Status]


def walk(root: str | os.PathLike[str]) -> Tree:
    """Everything below and at ``root``."""
    found: Tree = {}
    inodes: dict[tuple[int, int], bytes] = {}
    base = os.fsencode(root)
    todo = [b""]
    while todo:
        path = todo.pop()
        full = base + b"/" + path if path else base
        status = os.lstat(full)
        directory = stat.S_ISDIR(status.st_mode)
        content = _content(full, status.st_mode)
        if isinstance(content, list):
            inside = path + b"/" if path else b""
            todo += [inside + name for name in reversed(content)]
        found[path] = Status(
            status.st_mode,
            status.st_uid,
            status.st_gid,
            0 if directory else status.st_size,
            status.st_mtime_ns,
            status.st_nlink,
            status.st_rdev,
            inodes.setdefault((status.st_dev, status.st_ino), path),
            content,
            {name: os.getxattr(full, name, follow_symlinks=False) for name in _xattrs(full)},
        )
    return found


def _content(path: bytes, mode: int) -> object:
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:  # bytes
            return hashlib.file_digest(file, "sha256").hexdigest()
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    return sorted(os.listdir(path)) if stat.S_ISDIR(mode) else None


def _xattrs(path: bytes) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def differences(ours: Tree, theirs: Tree) -> Iterator[tuple[bytes, str, object, object]]:
    """Path, what of it (``path`` for one that only one has), ours, theirs.

    The root's link count is left out: an overlay says 1 of a directory that is in both layers.
    """
    for path in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(path), theirs.get(path)
        if left is None or right is None:
            yield path, "path", left and oct(left.mode), right and oct(right.mode)
            continue
        for name in Status._fields[:-1]:
            if getattr(left, name) != getattr(right, name) and (path or name != "nlink"):
                yield path, name, getattr(left, name), getattr(right, name)
        for name in sorted(left.xattrs.keys() | right.xattrs.keys()):
            if left.xattrs.get(name) != right.xattrs.get(name):
                yield path, name, left.xattrs.get(name), right.xattrs.get(name)
