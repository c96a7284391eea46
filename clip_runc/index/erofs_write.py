"""A tree becomes an EROFS image: all metadata, and pointers to data in the layers.

Two passes: every inode is given its place, parents before children and the children of a
directory side by side; then everything is written into one buffer.  Same tree, same bytes.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Sequence

from clip_runc.errors import LayerFormatError
from clip_runc.index import erofs_format as fmt
from clip_runc.index.chunks import ChunkMap, chunk_map
from clip_runc.index.erofs_format import BLOCK, INODE_SIZE, SLOT, round_up
from clip_runc.index.tree import Node

_NS = 1_000_000_000
_MAX_INDEXES = 1 << 23
"""Chunk indexes of one image (64 MiB): sparse files of tiny extents could take any number."""


def write_erofs(root: Node, layer_sizes: Sequence[int], tags: Sequence[str] = ()) -> bytes:
    """Write the image.  Device ``i + 1`` is layer ``i``.

    ``layer_sizes``: uncompressed bytes of each layer.  ``tags``: 64 characters to mark each
    device with, the digits of its diff_id, say.  The volume's UUID is derived from the
    content.  Raises ``LayerFormatError`` where a tree cannot be expressed.
    """
    return _Writer(root, layer_sizes, tags).image()


class _Placed:
    """An inode with its place: bytes at ``offset``, body after the xattrs, blocks elsewhere."""

    __slots__ = (
        "blocks",
        "body",
        "layout",
        "node",
        "offset",
        "parent",
        "start",
        "xattrs",
    )

    def __init__(self, node: Node, parent: int) -> None:
        self.node = node
        self.parent = parent  # nid, for ".."
        self.offset = 0
        self.layout = fmt.PLAIN
        self.xattrs = b""
        self.body = 0  # bytes of inline data, or of chunk indexes with what aligns them
        self.blocks = 0  # blocks of data of this image
        self.start = 0  # the first of them


class _Writer:
    def __init__(self, root: Node, layer_sizes: Sequence[int], tags: Sequence[str]) -> None:
        self._root = root
        self._sizes = layer_sizes
        self._tags = tags
        self._indexes = 0
        self._placed: list[_Placed] = []

    def image(self) -> bytes:
        if len(self._sizes) > 0xFFFF:
            raise LayerFormatError(f"{len(self._sizes)} layers are more than EROFS can name")
        end = self._place_all()
        end = self._place_blocks(round_up(end, BLOCK) // BLOCK)
        if end > fmt.MAX_BLOCKS:
            raise LayerFormatError("the image's metadata do not fit 32-bit block numbers")
        out = bytearray(end * BLOCK)
        for placed in self._placed:
            self._write_inode(out, placed)
        self._write_super(out, end)
        return bytes(out)

    # Places.

    def _place_all(self) -> int:
        """Give every node its nid, breadth first.  Gives the end of the inodes, in bytes."""
        at = round_up(fmt.DEVICE_TABLE + fmt.DEVICE.size * len(self._sizes), SLOT)
        if at > fmt.ROOT_LIMIT:
            raise LayerFormatError(f"{len(self._sizes)} layers leave no place for the root")
        for node in _nodes(self._root):
            node.nid = node.links = 0
        self._root.links = 2
        root = _Placed(self._root, 0)
        at = self._place(root, at)
        root.parent = self._root.nid
        # the list grows while it is walked
        for placed in self._placed:
            node = placed.node
            if node.children is None:
                continue
            for _, child in sorted(node.children.items()):
                if child.nid:
                    child.links += 1
                    continue
                child.links = 1
                if child.children is not None:
                    child.links = 2
                    node.links += 1
                at = self._place(_Placed(child, node.nid), at)
        return at

    def _place(self, placed: _Placed, at: int) -> int:
        node = placed.node
        placed.xattrs = encode_xattrs(node.entry.xattrs)
        head = INODE_SIZE + len(placed.xattrs)
        at = round_up(at, SLOT)
        if node.children is not None:
            at = self._place_data(placed, at, head, directory_size(node.children))
        elif node.entry.kind == stat.S_IFLNK:
            # the kernel wants a short link in the block of its inode (erofs_fill_symlink)
            at = self._place_data(placed, at, head, len(node.entry.link), near=True)
        elif node.entry.kind == stat.S_IFREG and node.entry.size:
            self._place_chunks(placed, head)
        placed.offset = at
        node.nid = at // SLOT
        self._placed.append(placed)
        return at + head + placed.body

    def _place_data(
        self, placed: _Placed, at: int, head: int, size: int, *, near: bool = False
    ) -> int:
        """Choose between a tail in the inode's own block and blocks only.  Gives the place."""
        whole, tail = divmod(size, BLOCK)
        placed.blocks = whole + bool(tail)
        if not tail:
            return at
        for start in range(at, at + BLOCK, SLOT):
            inside = start % BLOCK + head if near else (start + head) % BLOCK
            if inside + tail <= BLOCK:
                placed.layout, placed.body, placed.blocks = fmt.INLINE, tail, whole
                return start
        return at

    def _place_chunks(self, placed: _Placed, head: int) -> None:
        entry = placed.node.entry
        layer = placed.node.layer
        for extent in entry.extents:
            limit = len(entry.literal) if extent.stream < 0 else self._sizes[layer]
            start = ~extent.stream if extent.stream < 0 else extent.stream
            if start + extent.length > limit:
                raise LayerFormatError(f"{entry.path!r}: data lie beyond the end of the layer")
        # not kept but made again in the second pass: of a million files that saves 300 MB
        count = chunk_map(entry, _MAX_INDEXES - self._indexes).count
        self._indexes += count
        placed.layout = fmt.CHUNKED
        # chunk indexes are aligned to their size
        placed.body = -head % fmt.CHUNK.size + count * fmt.CHUNK.size
        placed.blocks = len(entry.literal) // BLOCK

    def _place_blocks(self, block: int) -> int:
        for placed in self._placed:
            placed.start = block
            block += placed.blocks
        return block

    # Bytes.

    def _write_inode(self, out: bytearray, placed: _Placed) -> None:
        node, entry = placed.node, placed.node.entry
        size, data = entry.size, b""
        union = placed.start if placed.blocks else 0
        if node.children is not None:
            data = encode_directory(node, placed.parent)
            size = len(data)
        elif entry.kind == stat.S_IFLNK:
            data = entry.link
            size = len(data)
        elif placed.layout == fmt.CHUNKED:
            chunks = chunk_map(entry, _MAX_INDEXES)
            union = (chunks.bits - fmt.BLOCK_BITS) | fmt.CHUNK_INDEXES
            data = entry.literal
        elif entry.kind in (stat.S_IFCHR, stat.S_IFBLK):
            union, size = fmt.encode_device(*entry.rdev), 0
        seconds, nanoseconds = divmod(entry.mtime_ns, _NS)
        fmt.INODE.pack_into(
            out,
            placed.offset,
            fmt.EXTENDED | placed.layout << 1,
            (len(placed.xattrs) - 12) // 4 + 1 if placed.xattrs else 0,
            node.mode,
            0,
            size,
            union,
            placed.offset // SLOT & 0xFFFFFFFF,
            entry.uid,
            entry.gid,
            seconds & 0xFFFFFFFFFFFFFFFF,
            nanoseconds,
            node.links,
            0,
            0,
        )
        at = placed.offset + INODE_SIZE
        out[at : at + len(placed.xattrs)] = placed.xattrs
        at += len(placed.xattrs)
        stored = placed.start * BLOCK
        if placed.layout == fmt.CHUNKED:
            self._write_chunks(out, round_up(at, fmt.CHUNK.size), placed, chunks)
            out[stored : stored + len(data)] = data
        else:
            split = placed.blocks * BLOCK
            out[stored : stored + len(data[:split])] = data[:split]
            out[at : at + len(data[split:])] = data[split:]

    def _write_chunks(self, out: bytearray, at: int, placed: _Placed, chunks: ChunkMap) -> None:
        device = placed.node.layer + 1
        for stream in chunks.streams():
            if stream is None:
                fmt.CHUNK.pack_into(out, at, 0, 0, fmt.NULL_ADDRESS)
            elif stream < 0:
                fmt.CHUNK.pack_into(out, at, 0, 0, placed.start + ~stream // BLOCK)
            else:
                fmt.CHUNK.pack_into(out, at, 0, device, stream // BLOCK)
            at += fmt.CHUNK.size

    def _write_super(self, out: bytearray, blocks: int) -> None:
        for number, size in enumerate(self._sizes):
            tag = self._tags[number].encode() if self._tags else b""
            device_blocks = round_up(size, BLOCK) // BLOCK
            if device_blocks > fmt.MAX_BLOCKS:
                raise LayerFormatError(f"layer {number} has {size} bytes, too many for EROFS")
            at = fmt.DEVICE_TABLE + number * fmt.DEVICE.size
            fmt.DEVICE.pack_into(out, at, tag[:64], device_blocks, 0, b"")
        incompat = fmt.INCOMPAT_CHUNKED_FILE
        if self._sizes:
            incompat |= fmt.INCOMPAT_DEVICE_TABLE
        fmt.SUPER.pack_into(
            out, fmt.SUPER_OFFSET,
            fmt.MAGIC, 0, fmt.COMPAT, fmt.BLOCK_BITS, 0, self._root.nid, len(self._placed), 0, 0,
            blocks, 0, 0, b"", b"", incompat, 0, len(self._sizes),
            fmt.DEVICE_TABLE // fmt.DEVICE.size if self._sizes else 0, 0, 0, 0, 0, 0, b"",
        )  # fmt: skip
        out[fmt.UUID_OFFSET : fmt.UUID_OFFSET + 16] = hashlib.sha256(out).digest()[:16]


def _nodes(root: Node) -> Iterator[Node]:
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if node.children:
            stack += node.children.values()


def encode_xattrs(xattrs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Encode an inline xattr area, entries sorted by prefix and name; empty for none."""
    found = []
    for name, value in xattrs:
        for index, prefix in fmt.XATTR_PREFIXES.items():
            if name.startswith(prefix):
                found.append((index, name[len(prefix) :], value))
                break
        else:
            raise LayerFormatError(f"xattr {name!r} has a prefix that EROFS does not know")
    if not found:
        return b""
    out = bytearray(fmt.XATTR_HEADER.pack(0, 0, b""))
    for index, name, value in sorted(found):
        out += fmt.XATTR_ENTRY.pack(len(name), index, len(value)) + name + value
        out += bytes(-len(out) % 4)
    return bytes(out)


def _blocks(names: list[bytes]) -> Iterator[tuple[int, int, int]]:
    """Cut sorted names into directory blocks: first, past the last, bytes used."""
    first = used = 0
    for number, name in enumerate(names):
        need = fmt.DIRENT.size + len(name)
        if used + need > BLOCK:
            yield first, number, used
            first, used = number, 0
        used += need
    yield first, len(names), used


def _names(children: dict[bytes, Node]) -> list[bytes]:
    return sorted([b".", b"..", *children])


def directory_size(children: dict[bytes, Node]) -> int:
    """Bytes of a directory's data: whole blocks, the last only as far as it is used."""
    size = 0
    for _, _, used in _blocks(_names(children)):
        size = round_up(size, BLOCK) + used
    return size


def encode_directory(node: Node, parent: int) -> bytes:
    """Encode the data of a directory whose children have their nids."""
    children = node.children or {}
    names = _names(children)
    out = bytearray()
    for first, last, _ in _blocks(names):
        out += bytes(-len(out) % BLOCK)
        at = (last - first) * fmt.DIRENT.size
        for name in names[first:last]:
            if name in children:
                child = children[name]
                nid, kind = child.nid, fmt.FILE_TYPES[child.entry.kind]
            else:
                nid, kind = (node.nid if name == b"." else parent), 2
            out += fmt.DIRENT.pack(nid, at, kind, 0)
            at += len(name)
        out += b"".join(names[first:last])
    return bytes(out)
