"""The gate before root mounts an image: everything in it is looked at, nothing is trusted.

Accepted is what ``erofs_write`` makes and nothing else: a strict dialect leaves a kernel
fewer surprises than EROFS as a whole.  Each inode, table and block must lie on bytes that
nothing else claims; that alone rules out cycles and bounds work and memory by the image's
size (about a sixth of it).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from clip_runc.errors import IndexFormatError
from clip_runc.index import erofs_format as fmt
from clip_runc.index.erofs_format import BLOCK, INODE_SIZE, SLOT, round_up
from clip_runc.index.pax import OVERLAY_PREFIXES

_KIND_TYPES = {kind >> 12: number for kind, number in fmt.FILE_TYPES.items()}
_REGULAR, _DIRECTORY, _SYMLINK = 1, 2, 7
_DEVICES = (3, 4)
_DIRENT = fmt.DIRENT.size
_CHUNK = fmt.CHUNK.size


@dataclass(frozen=True, slots=True)
class Stats:
    """What an image holds; ``bytes`` are those of its regular files, hard links once."""

    inodes: int
    files: int
    dirs: int
    symlinks: int
    others: int
    bytes: int


def check_erofs(image: bytes | memoryview, layer_sizes: Sequence[int]) -> Stats:
    """Walk the whole image.  Raises ``IndexFormatError`` for anything but a sound one.

    ``layer_sizes``: uncompressed bytes of each layer; each is presented rounded up to a
    block.
    """
    return _Checker(memoryview(image), layer_sizes).check()


def _refuse(what: str) -> IndexFormatError:
    return IndexFormatError(f"EROFS image: {what}", "it is damaged, or was made to deceive")


class _Checker:
    def __init__(self, image: memoryview, layer_sizes: Sequence[int]) -> None:
        self._image = image
        self._size = len(image)
        # blocks of each device, the image itself first
        self._blocks = [self._size // BLOCK, *(-(-size // BLOCK) for size in layer_sizes)]
        self._claimed = bytearray(self._size // SLOT)
        # names that an inode lacks yet, by nid; 0 before its first
        self._missing = array("I", bytes(4 * (self._size // SLOT)))
        self._counts = [0] * 8  # by file type
        self._bytes = 0
        # directories to be read: nid and the nid of the parent
        self._todo = array("Q")

    def check(self) -> Stats:
        root, inodes = self._super()
        kind = self._inode(root)
        if kind != _DIRECTORY:
            raise _refuse("the root is not a directory")
        self._missing[root] -= 2  # its own "." and ".."
        self._todo.extend((root, root))
        while self._todo:
            parent = self._todo.pop()
            self._directory(self._todo.pop(), parent)
        if any(self._missing):
            raise _refuse("link counts disagree with names")
        if sum(self._counts) != inodes:
            raise _refuse(f"{inodes} inodes are declared, {sum(self._counts)} found")
        files, dirs, symlinks = (self._counts[k] for k in (_REGULAR, _DIRECTORY, _SYMLINK))
        others = inodes - files - dirs - symlinks
        return Stats(inodes, files, dirs, symlinks, others, self._bytes)

    def _claim(self, start: int, end: int, what: str) -> None:
        """Take ``[start, end)`` for one use, in units of 32 bytes.  The start is aligned."""
        first, last = start // SLOT, -(-end // SLOT)
        if start < 0 or end > self._size:
            raise _refuse(f"{what} lies outside of the image")
        if last - first == 2:  # most inodes
            if self._claimed[first] or self._claimed[first + 1]:
                raise _refuse(f"{what} shares bytes with something else")
            self._claimed[first] = self._claimed[first + 1] = 1
            return
        if self._claimed.find(1, first, last) >= 0:
            raise _refuse(f"{what} shares bytes with something else")
        self._claimed[first:last] = b"\1" * (last - first)

    # The superblock and the device table.

    def _super(self) -> tuple[int, int]:
        """Give the root's nid and the number of inodes."""
        if self._size < fmt.SUPER_OFFSET + BLOCK or self._size % BLOCK:
            raise _refuse(f"{self._size} bytes are no whole number of blocks")
        devices = len(self._blocks) - 1
        if devices > 0xFFFF or max(self._blocks) > fmt.MAX_BLOCKS:
            raise _refuse("more or larger devices than EROFS has")
        fields = list(fmt.SUPER.unpack_from(self._image, fmt.SUPER_OFFSET))
        magic, root, inodes = fields[0], fields[5], fields[6]
        if magic != fmt.MAGIC:
            raise _refuse("no superblock")
        incompat, slot = fmt.INCOMPAT_CHUNKED_FILE, 0
        if devices:
            incompat |= fmt.INCOMPAT_DEVICE_TABLE
            slot = fmt.DEVICE_TABLE // fmt.DEVICE.size
        expected = [
            magic, 0, fmt.COMPAT, fmt.BLOCK_BITS, 0, root, inodes, 0, 0,
            self._blocks[0], 0, 0, fields[12], bytes(16), incompat, 0, devices, slot, 0, 0, 0, 0, 0,
            bytes(23),
        ]  # fmt: skip
        if fields != expected:
            raise _refuse("the superblock is not one of an index with these layers")
        end = fmt.DEVICE_TABLE + devices * fmt.DEVICE.size
        self._claim(0, end, "the device table")
        for number in range(devices):
            at = fmt.DEVICE_TABLE + number * fmt.DEVICE.size
            _, blocks, mapped, rest = fmt.DEVICE.unpack_from(self._image, at)
            if blocks != self._blocks[number + 1] or mapped or rest.strip(b"\0"):
                raise _refuse(f"device {number + 1} is not layer {number}")
        return root, inodes

    # Inodes.

    def _inode(self, nid: int) -> int:
        """Check an inode at its first name; gives its file type."""
        at = nid * SLOT
        if at + INODE_SIZE > self._size:
            raise _refuse(f"inode {nid} lies outside of the image")
        (form, icount, mode, zero, size, union, ino, _, _, _, ns, nlink, zero1, zero2) = (
            fmt.INODE.unpack_from(self._image, at)
        )
        kind = _KIND_TYPES.get(mode >> 12, 0)
        if not kind or zero or zero1 or zero2 or ino != nid & 0xFFFFFFFF or ns > 999_999_999:
            raise _refuse(f"inode {nid} has impossible fields")
        if nlink < 1 + (kind == _DIRECTORY) or size >> 63:
            raise _refuse(f"inode {nid} has {nlink} links and {size} bytes")
        body = at + INODE_SIZE + fmt.xattr_size(icount)
        if kind == _REGULAR and form == fmt.EXTENDED | fmt.CHUNKED << 1:
            end = self._chunked(nid, body, size, union)
            self._bytes += size
        elif kind in (_DIRECTORY, _SYMLINK):
            end = self._stored(nid, kind, body, form, size, union)
        else:
            end = body
            if form != fmt.EXTENDED | fmt.PLAIN << 1 or size:
                raise _refuse(f"inode {nid} has data that its kind cannot have")
            if union and kind not in _DEVICES:
                raise _refuse(f"inode {nid} has a device number")
        self._claim(at, end, f"inode {nid}")
        if icount:
            self._xattrs(nid, at + INODE_SIZE, body)
        self._counts[kind] += 1
        self._missing[nid] = nlink
        return kind

    def _stored(self, nid: int, kind: int, body: int, form: int, size: int, union: int) -> int:
        """Check where a directory's or link's data lie; gives the end of the inode."""
        layout = form >> 1
        if not form & 1 or layout not in (fmt.PLAIN, fmt.INLINE) or not size:
            raise _refuse(f"inode {nid} has no data, or a layout that its kind cannot have")
        if kind == _SYMLINK and size > fmt.LINK_MAX:
            raise _refuse(f"inode {nid}: a link of {size} bytes")
        tail = size % BLOCK if layout == fmt.INLINE else 0
        if layout == fmt.INLINE and (not tail or body % BLOCK + tail > BLOCK):
            raise _refuse(f"inode {nid}: inline data cross a block")
        blocks = -(-(size - tail) // BLOCK)
        if blocks:
            self._claim(union * BLOCK, (union + blocks) * BLOCK, f"data of inode {nid}")
        elif union:
            raise _refuse(f"inode {nid} names a block that it does not need")
        if body + tail > self._size:
            raise _refuse(f"inode {nid} lies outside of the image")
        if kind == _SYMLINK:
            self._link(nid, union * BLOCK, size - tail, body, tail)
        return body + tail

    def _link(self, nid: int, at: int, stored: int, body: int, tail: int) -> None:
        if tail and body // BLOCK != nid * SLOT // BLOCK:
            raise _refuse(f"inode {nid}: a link outside of its inode's block")
        target = bytes(self._image[at : at + stored]) + bytes(self._image[body : body + tail])
        if b"\0" in target:
            raise _refuse(f"inode {nid}: a link with a NUL")

    def _chunked(self, nid: int, body: int, size: int, union: int) -> int:
        """Check the chunk indexes of a file; gives the end of the inode."""
        bits = fmt.BLOCK_BITS + (union & fmt.CHUNK_BITS_MASK)
        if union & ~fmt.CHUNK_BITS_MASK != fmt.CHUNK_INDEXES or not size:
            raise _refuse(f"inode {nid} has the chunk format {union:#x} and {size} bytes")
        count = -(-size >> bits)
        table = round_up(body, _CHUNK)
        end = table + count * _CHUNK
        if end > self._size:
            raise _refuse(f"inode {nid} has more chunks than the image has room for")
        per_chunk = 1 << bits - fmt.BLOCK_BITS
        left = -(-size // BLOCK)
        for advise, device, block in fmt.CHUNK.iter_unpack(self._image[table:end]):
            blocks = min(per_chunk, left)
            left -= blocks
            if advise or device >= len(self._blocks):
                raise _refuse(f"inode {nid} names the unknown device {device}")
            if block == fmt.NULL_ADDRESS:
                if device:
                    raise _refuse(f"inode {nid} has a hole on device {device}")
            elif block + blocks > self._blocks[device]:
                raise _refuse(f"inode {nid} has data beyond the end of device {device}")
            elif not device:
                self._claim(block * BLOCK, (block + blocks) * BLOCK, f"data of inode {nid}")
        return end

    def _xattrs(self, nid: int, at: int, end: int) -> None:
        """Check an xattr area: entries sorted, without repetition, tiling it."""
        area = bytes(self._image[at:end])
        if any(area[: fmt.XATTR_HEADER.size]) or len(area) <= fmt.XATTR_HEADER.size:
            raise _refuse(f"inode {nid} has shared or no xattrs")
        at = fmt.XATTR_HEADER.size
        before = (0, b"")
        while at < len(area):
            length, index, size = fmt.XATTR_ENTRY.unpack_from(area, at)
            at += fmt.XATTR_ENTRY.size
            key = index, area[at : at + length]
            prefix = fmt.XATTR_PREFIXES.get(index)
            if prefix is None or key <= before or b"\0" in key[1] or at + length + size > len(area):
                raise _refuse(f"inode {nid} has damaged xattrs")
            if bool(length) == (index in fmt.ACL_INDEXES):
                raise _refuse(f"inode {nid} has an xattr {prefix!r} of {length} more bytes")
            if (prefix + key[1]).startswith(OVERLAY_PREFIXES):
                raise _refuse(f"inode {nid} has xattrs that overlayfs would obey")
            before = key
            at = round_up(at + length + size, 4)

    # Directories.

    def _directory(self, nid: int, parent: int) -> None:
        form, icount, _, _, size, union = fmt.INODE.unpack_from(self._image, nid * SLOT)[:6]
        body = nid * SLOT + INODE_SIZE + fmt.xattr_size(icount)
        tail = size % BLOCK if form >> 1 == fmt.INLINE else 0
        last = b""
        dots = 0
        for at in range(union * BLOCK, union * BLOCK + size - tail, BLOCK):
            used = min(BLOCK, union * BLOCK + size - at)
            last, found = self._block(nid, parent, at, used, last)
            dots += found
        if tail:
            last, found = self._block(nid, parent, body, tail, last)
            dots += found
        if dots != 2:
            raise _refuse(f"directory {nid} lacks . or ..")

    def _block(self, nid: int, parent: int, at: int, used: int, last: bytes) -> tuple[bytes, int]:
        """Check a block of names, which go on after ``last``; gives the last, and dots found."""
        block = bytes(self._image[at : at + used])
        start = int.from_bytes(block[8:10], "little")
        if start < _DIRENT or start % _DIRENT or start >= used:
            raise _refuse(f"directory {nid} has a damaged block")
        text = block[start:].rstrip(b"\0")
        if b"/" in text or b"\0" in text:
            raise _refuse(f"directory {nid} has a name with a slash or NUL")
        ends = [entry[1] for entry in fmt.DIRENT.iter_unpack(block[_DIRENT:start])]
        ends.append(start + len(text))
        dots = 0
        begin = start
        for (child, name_at, kind, zero), end in zip(
            fmt.DIRENT.iter_unpack(block[:start]), ends, strict=True
        ):
            name = block[name_at:end]
            if name_at != begin or not 0 < end - begin <= fmt.NAME_MAX or name <= last or zero:
                raise _refuse(f"directory {nid} has names out of order or place")
            begin, last = end, name
            if name in (b".", b".."):
                dots += 1
                if kind != _DIRECTORY or child != (nid if name == b"." else parent):
                    raise _refuse(f"directory {nid} has a wrong {name.decode()}")
            else:
                self._name(nid, child, kind)
        return last, dots

    def _name(self, directory: int, child: int, kind: int) -> None:
        """Count a name of an inode, which is checked at its first."""
        if child >= len(self._missing):
            raise _refuse(f"directory {directory} names inode {child} outside of the image")
        at = child * SLOT
        if not self._missing[child]:
            if self._inode(child) != kind:
                raise _refuse(f"directory {directory} has the wrong type for inode {child}")
            if kind == _DIRECTORY:
                # its own ".", and the ".." that it gives to its parent
                self._missing[child] -= 1
                self._todo.extend((child, directory))
                if not self._missing[directory]:
                    raise _refuse(f"directory {directory} has more subdirectories than links")
                self._missing[directory] -= 1
        elif kind == _DIRECTORY or _KIND_TYPES.get(self._mode(at) >> 12) != kind:
            raise _refuse(f"inode {child} is named as another type, or is a directory twice")
        if not self._missing[child]:
            raise _refuse(f"inode {child} has more names than links")
        self._missing[child] -= 1

    def _mode(self, at: int) -> int:
        return int.from_bytes(self._image[at + 4 : at + 6], "little")
