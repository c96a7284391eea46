"""Reads an EROFS image of our dialect: inodes, names, links, xattrs, where data lie.

Every access is checked against the bounds of the image, so that a hostile one raises
``IndexFormatError`` and nothing else; whether an image is sound as a whole is
``erofs_check``'s to say.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from clip_runc.errors import IndexFormatError
from clip_runc.index import erofs_format as fmt
from clip_runc.index.erofs_format import BLOCK, INODE_SIZE, SLOT, round_up

_NS = 1_000_000_000
_MAX_LINKS = 40
_LISTINGS = 256
_LISTING_BYTES = 32 * BLOCK
_DIRENT = fmt.DIRENT.size

Extents = list[tuple[int, int, int]]


class Inode(NamedTuple):
    """What ``stat`` would say of an inode, and after ``rdev`` what its layout is on disk."""

    nid: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    nlink: int
    rdev: tuple[int, int]
    layout: int
    union: int  # first block, or chunk format
    xattrs: int  # place of the xattr area in the image
    body: int  # place of what follows it: inline data or chunk indexes


class ErofsImage:
    """An EROFS image in memory: ``bytes``, ``mmap`` or ``memoryview``.  Cheap to make."""

    def __init__(self, image: bytes | memoryview) -> None:
        self._image = memoryview(image)
        if len(self._image) < fmt.SUPER_OFFSET + BLOCK:
            raise IndexFormatError(f"{len(self._image)} bytes are too few for an EROFS image")
        fields = fmt.SUPER.unpack_from(self._image, fmt.SUPER_OFFSET)
        if fields[0] != fmt.MAGIC or fields[3] != fmt.BLOCK_BITS or fields[10] != 0:
            raise IndexFormatError("not an EROFS image of 512-byte blocks as indexes have them")
        self.root: int = fields[5]
        self.devices: int = fields[16]
        self.inodes: int = fields[6]
        self._listings: OrderedDict[int, dict[bytes, int] | None] = OrderedDict()

    def inode(self, nid: int) -> Inode:
        """Read an inode.  Raises ``IndexFormatError``."""
        at = nid * SLOT
        if not 0 <= at <= len(self._image) - INODE_SIZE:
            raise IndexFormatError(f"inode {nid} lies outside of the image")
        (layout, icount, mode, _, size, union, _, uid, gid, seconds, ns, nlink, _, _) = (
            fmt.INODE.unpack_from(self._image, at)
        )
        if not layout & 1 or layout >> 1 not in (fmt.PLAIN, fmt.INLINE, fmt.CHUNKED):
            raise IndexFormatError(f"inode {nid} has the unknown format {layout:#x}")
        if seconds >> 63:
            seconds -= 1 << 64
        device = stat.S_IFMT(mode) in (stat.S_IFCHR, stat.S_IFBLK)
        return Inode(
            nid,
            mode,
            uid,
            gid,
            size,
            seconds * _NS + ns,
            nlink,
            fmt.decode_device(union) if device else (0, 0),
            layout >> 1,
            union,
            at + INODE_SIZE,
            at + INODE_SIZE + fmt.xattr_size(icount),
        )

    # Names.

    def lookup(self, nid: int, name: bytes) -> int | None:
        """Find a name in a directory; None where there is none, or ``nid`` is no directory."""
        listing = self._listings.get(nid)
        if listing is not None:
            self._listings.move_to_end(nid)
            return listing.get(name)
        inode = self.inode(nid)
        if not stat.S_ISDIR(inode.mode) or not name:
            return None
        if inode.size <= _LISTING_BYTES:
            listing = self._listing(inode)
            if listing is not None:
                return listing.get(name)
        return self._search(inode, name)

    def _listing(self, inode: Inode) -> dict[bytes, int] | None:
        """A directory's names from the second question on: who asks once walks past it."""
        if inode.nid not in self._listings:
            self._listings[inode.nid] = None
            if len(self._listings) > _LISTINGS:
                self._listings.popitem(last=False)
            return None
        blocks = range(-(-inode.size // BLOCK))
        found = dict(pair for number in blocks for pair in self._dirents(inode, number))
        self._listings[inode.nid] = found
        return found

    def _search(self, inode: Inode, name: bytes) -> int | None:
        low, high = 0, -(-inode.size // BLOCK) - 1
        while low < high:  # the last block that starts with a name not after this one
            middle = (low + high + 1) // 2
            if self._first_name(inode, middle) <= name:
                low = middle
            else:
                high = middle - 1
        for found, child in self._dirents(inode, low):
            if found == name:
                return child
        return None

    def entries(self, nid: int, start: int = 0) -> Iterator[tuple[int, bytes, int]]:
        """List a directory in order: cookie to go on after, name, nid; no ``.`` and ``..``.

        ``start``: a cookie that was given before, 0 for all.  Raises ``IndexFormatError``.
        """
        inode = self.inode(nid)
        if not stat.S_ISDIR(inode.mode):
            raise IndexFormatError(f"inode {nid} is not a directory")
        first, skip = divmod(start, BLOCK)
        for block in range(first, -(-inode.size // BLOCK)):
            cookie = block * BLOCK
            for name, child in self._dirents(inode, block):
                cookie += 1
                if cookie - block * BLOCK > skip and name not in (b".", b".."):
                    yield cookie, name, child
            skip = 0

    def _block(self, inode: Inode, number: int) -> bytes:
        """Give a directory's block, the last one only as far as it is used."""
        offset = number * BLOCK
        size = min(BLOCK, inode.size - offset)
        if inode.layout == fmt.CHUNKED:
            raise IndexFormatError(f"inode {inode.nid}: names or a link in chunks")
        inline = inode.layout == fmt.INLINE and offset + BLOCK > inode.size
        return self._bytes(inode.body if inline else inode.union * BLOCK + offset, size)

    def _names_at(self, inode: Inode, block: bytes) -> int:
        start = int.from_bytes(block[8:10], "little")
        if start < _DIRENT or start % _DIRENT or start >= len(block):
            raise IndexFormatError(f"directory {inode.nid} has a damaged block")
        return start

    def _first_name(self, inode: Inode, number: int) -> bytes:
        block = self._block(inode, number)
        start = self._names_at(inode, block)
        if start == _DIRENT:
            return block[start:].rstrip(b"\0")
        return block[start : int.from_bytes(block[_DIRENT + 8 : _DIRENT + 10], "little")]

    def _dirents(self, inode: Inode, number: int) -> list[tuple[bytes, int]]:
        block = self._block(inode, number)
        start = self._names_at(inode, block)
        found = []
        following = [at for _, at, _, _ in fmt.DIRENT.iter_unpack(block[_DIRENT:start])]
        following.append(len(block.rstrip(b"\0")))
        for (nid, at, _, _), end in zip(
            fmt.DIRENT.iter_unpack(block[:start]), following, strict=True
        ):
            if not start <= at < end <= len(block):
                raise IndexFormatError(f"directory {inode.nid} has a damaged block")
            found.append((block[at:end], nid))
        return found

    def resolve(self, path: bytes, *, follow: bool = False) -> int:
        """Give the nid at a path from the root; ``..`` does not leave it.

        Symbolic links are followed only with ``follow``, the last one too, and never out of
        the image.  Raises ``KeyError`` for what is not there, and for endless links.
        """
        stack = [self.root]
        todo = path.split(b"/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                del stack[max(1, len(stack) - 1) :]
                continue
            if name in (b"", b"."):
                continue
            nid = self.lookup(stack[-1], name)
            if nid is None:
                raise KeyError(path)
            if follow and stat.S_ISLNK(self.inode(nid).mode):
                links += 1
                target = self.readlink(nid)
                if links > _MAX_LINKS:
                    raise KeyError(path)
                if target.startswith(b"/"):
                    del stack[1:]
                todo += target.split(b"/")[::-1]
                continue
            stack.append(nid)
        return stack[-1]

    def readlink(self, nid: int) -> bytes:
        """Give the target of a symbolic link.  Raises ``IndexFormatError``."""
        inode = self.inode(nid)
        if not stat.S_ISLNK(inode.mode) or inode.size > fmt.LINK_MAX:
            raise IndexFormatError(f"inode {nid} is not a symbolic link")
        blocks = range(-(-inode.size // BLOCK))
        return b"".join(self._block(inode, number) for number in blocks)

    # Extended attributes.

    def xattrs(self, nid: int) -> dict[bytes, bytes]:
        """Give the xattrs of an inode by full name.  Raises ``IndexFormatError``."""
        inode = self.inode(nid)
        area = self._bytes(inode.xattrs, inode.body - inode.xattrs)
        found: dict[bytes, bytes] = {}
        at = fmt.XATTR_HEADER.size
        while at < len(area):
            length, index, size = fmt.XATTR_ENTRY.unpack_from(area, at)
            at += fmt.XATTR_ENTRY.size
            end = at + length + size
            if index not in fmt.XATTR_PREFIXES or end > len(area):
                raise IndexFormatError(f"inode {nid} has damaged xattrs")
            name = fmt.XATTR_PREFIXES[index] + area[at : at + length]
            found[name] = area[at + length : end]
            at = round_up(end, 4)
        return found

    # Data.

    def extents(self, nid: int, offset: int, length: int) -> Extents:
        """Say where bytes of a file are: ``(device, offset there, length)`` in file order.

        Device 0 is this image, ``i + 1`` layer ``i``, -1 a hole.  What is asked for is clipped
        to the size of the file.  Raises ``IndexFormatError``.
        """
        inode = self.inode(nid)
        end = min(inode.size, offset + length)
        if offset < 0 or offset >= end:
            return []
        if inode.layout == fmt.CHUNKED:
            return self._chunks(inode, offset, end)
        tail = inode.size - inode.size % BLOCK if inode.layout == fmt.INLINE else inode.size
        found: Extents = []
        if offset < tail:
            found.append((0, inode.union * BLOCK + offset, min(end, tail) - offset))
        if end > tail:
            begin = max(offset, tail)
            found.append((0, inode.body + begin - tail, end - begin))
        for _, at, size in found:
            self._bounds(at, size)
        return found

    def _chunks(self, inode: Inode, offset: int, end: int) -> Extents:
        bits = fmt.BLOCK_BITS + (inode.union & fmt.CHUNK_BITS_MASK)
        if not inode.union & fmt.CHUNK_INDEXES:
            raise IndexFormatError(f"inode {inode.nid} has no chunk indexes")
        table = round_up(inode.body, fmt.CHUNK.size)
        found: Extents = []
        while offset < end:
            chunk = offset >> bits
            at = table + chunk * fmt.CHUNK.size
            self._bounds(at, fmt.CHUNK.size)
            _, device, block = fmt.CHUNK.unpack_from(self._image, at)
            size = min(end, (chunk + 1) << bits) - offset
            place = block * BLOCK + offset - (chunk << bits)
            if block == fmt.NULL_ADDRESS:
                device, place = -1, 0
            elif device == 0:
                self._bounds(place, size)
            elif device > self.devices:
                raise IndexFormatError(f"inode {inode.nid} names the unknown device {device}")
            if found and found[-1][0] == device and (device < 0 or sum(found[-1][1:]) == place):
                found[-1] = device, found[-1][1], found[-1][2] + size
            else:
                found.append((device, place, size))
            offset += size
        return found

    def _bounds(self, at: int, size: int) -> None:
        if at < 0 or size < 0 or at + size > len(self._image):
            raise IndexFormatError(f"{size} bytes at {at} lie outside of the image")

    def _bytes(self, at: int, size: int) -> bytes:
        self._bounds(at, size)
        return bytes(self._image[at : at + size])
