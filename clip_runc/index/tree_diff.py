"""What differs between the trees of two indexes, by path: metadata and where the data lie.

An index holds no hash of a file.  Data are the same where both name the same bytes of the same
layer (by diff_id).  Where they do not, size and modification time decide, as with rsync, unless
``strict`` is asked for, which calls data that lie elsewhere a difference.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clip_runc.index.erofs_read import ErofsImage, Inode

ADDED, REMOVED, CHANGED = "added", "removed", "changed"

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
}


class Tree:
    """An image's metadata (its EROFS image), and the diff_id of each of its layers."""

    def __init__(self, data: bytes, diff_ids: Sequence[str]) -> None:
        self.data = data
        self.diff_ids = diff_ids
        self.image = ErofsImage(data)


class Change(NamedTuple):
    """A path (absolute); ``ADDED``, ``REMOVED`` or ``CHANGED``; attribute → (old, new)."""

    path: bytes
    kind: str
    attributes: dict[str, tuple[object, object]]


def diff_trees(old: Tree, new: Tree, *, strict: bool = False) -> Iterator[Change]:
    """The differences, each directory's names in order.  Raises ``IndexFormatError``.

    Both images must have passed ``check_erofs``: a cycle of directories would have no end.
    """
    # A stack of our own: the depth of a tree is the image's choice.
    waiting: list[tuple[bytes, int | None, int | None]] = [(b"", old.image.root, new.image.root)]
    while waiting:
        path, left, right = waiting.pop()
        change = _compare(path or b"/", old, left, new, right, strict)
        if change is not None:
            yield change
        names_left, names_right = _names(old.image, left), _names(new.image, right)
        waiting += [
            (path + b"/" + name, names_left.get(name), names_right.get(name))
            for name in sorted({*names_left, *names_right}, reverse=True)
        ]


def _names(image: ErofsImage, nid: int | None) -> dict[bytes, int]:
    if nid is None or not stat.S_ISDIR(image.inode(nid).mode):
        return {}
    return {name: child for _, name, child in image.entries(nid)}


def _compare(
    path: bytes, old: Tree, left: int | None, new: Tree, right: int | None, strict: bool
) -> Change | None:
    if left is None or right is None:
        return Change(path, ADDED if left is None else REMOVED, {})
    before, after = _attributes(old.image, left), _attributes(new.image, right)
    found = {
        name: (before.get(name), after.get(name))
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    }
    if before["type"] == after["type"] == "file":
        places = _places(old, left), _places(new, right)
        if places[0] != places[1] and (strict or "size" in found or "mtime_ns" in found):
            found["data"] = places
    return Change(path, CHANGED, found) if found else None


def _attributes(image: ErofsImage, nid: int) -> dict[str, object]:
    """What ``stat``, ``readlink`` and ``getfattr`` would say, by name."""
    inode = image.inode(nid)
    kind = stat.S_IFMT(inode.mode)
    found: dict[str, object] = {
        "type": _KINDS.get(kind, "unknown"),
        "mode": inode.mode & 0o7777,
        "uid": inode.uid,
        "gid": inode.gid,
        "mtime_ns": inode.mtime_ns,
    }
    if kind != stat.S_IFDIR:
        found["links"] = inode.nlink
    if kind == stat.S_IFREG:
        found["size"] = inode.size
    elif kind == stat.S_IFLNK:
        found["target"] = image.readlink(nid)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        found["device"] = inode.rdev
    for name, value in image.xattrs(nid).items():
        found[f"xattr {name.decode('utf-8', 'backslashreplace')}"] = value
    return found


def _places(tree: Tree, nid: int) -> list[tuple[str, int, int]]:
    """Where a file's data lie: diff_id, offset and length of each piece; holes have no diff_id."""
    inode: Inode = tree.image.inode(nid)
    found = []
    for device, offset, length in tree.image.extents(nid, 0, inode.size):
        if device < 0:
            found.append(("hole", 0, length))
        elif device == 0:
            own = hashlib.sha256(tree.data[offset : offset + length]).hexdigest()
            found.append((f"in the index: {own}", 0, length))
        else:
            found.append((tree.diff_ids[device - 1], offset, length))
    return found
