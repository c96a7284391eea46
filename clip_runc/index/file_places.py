"""From a place in a layer's tar stream back to the path of the file that has it."""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections.abc import Iterator

from clip_runc.index.erofs_read import ErofsImage


class FilePlaces:
    """Where the files of an image lie in its layers; all of it is read when this is made.

    The image must have passed ``check_erofs``: a cycle of directories would have no end.
    Raises ``IndexFormatError``.
    """

    def __init__(self, image: ErofsImage) -> None:
        found: dict[int, list[tuple[int, int, bytes]]] = {}
        for path, nid, size in _files(image):
            for device, offset, length in image.extents(nid, 0, size):
                if device > 0:
                    found.setdefault(device - 1, []).append((offset, offset + length, path))
        # of a file with several names the first one, in the order of the tree
        self._places = {layer: sorted(rows, key=_start) for layer, rows in found.items()}
        self._starts = {layer: [row[0] for row in rows] for layer, rows in self._places.items()}

    def path(self, layer: int, offset: int) -> bytes:
        """The absolute path of the file with byte ``offset`` of ``layer`` (its place in the image).

        ``b""`` for what belongs to no file: headers, and files that a later layer hides.
        """
        at = bisect_right(self._starts.get(layer, []), offset) - 1
        if at < 0:
            return b""
        _, end, path = self._places[layer][at]
        return path if offset < -(-end // 512) * 512 else b""


def _start(row: tuple[int, int, bytes]) -> int:
    return row[0]


def _files(image: ErofsImage) -> Iterator[tuple[bytes, int, int]]:
    """(path, nid, size) of each regular file, hard links once."""
    waiting = [(b"", image.root)]
    seen: set[int] = set()
    while waiting:
        path, nid = waiting.pop()
        inode = image.inode(nid)
        if stat.S_ISDIR(inode.mode):
            below = [(path + b"/" + name, child) for _, name, child in image.entries(nid)]
            waiting += reversed(below)
        elif stat.S_ISREG(inode.mode) and nid not in seen:
            seen.add(nid)
            yield path, nid, inode.size
