"""The gate: each forgery by itself, then random ones."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import IndexFormatError
from clip_runc.index import erofs_format as fmt
from clip_runc.index.erofs_check import check_erofs
from clip_runc.index.erofs_read import ErofsImage
from clip_runc.index.erofs_write import write_erofs
from tests.integration.prerequisites import paced
from tests.unit.index.erofs_trees import LAYER, sample

DATA = write_erofs(sample(60), [LAYER])
IMAGE = ErofsImage(DATA)


def nid(path: bytes) -> int:
    return IMAGE.resolve(path)


def patched(at: int, layout: str, *values: int | bytes) -> bytes:
    data = bytearray(DATA)
    struct.pack_into("<" + layout, data, at, *values)
    return bytes(data)


def field(path: bytes, offset: int, layout: str, value: int) -> bytes:
    return patched(nid(path) * 32 + offset, layout, value)


def dirents(path: bytes) -> int:
    """Place of a directory's first block of dirents."""
    inode = IMAGE.inode(nid(path))
    return inode.body if inode.size < 512 else inode.union * 512


def test_the_sample_is_sound() -> None:
    stats = check_erofs(memoryview(DATA), [LAYER])
    assert (stats.files, stats.dirs, stats.symlinks, stats.others) == (64, 3, 4, 4)
    assert stats.inodes == 75


SUPER = fmt.SUPER_OFFSET
FORGERIES: dict[str, Callable[[], bytes]] = {
    "magic": lambda: patched(SUPER, "I", 0),
    "checksum": lambda: patched(SUPER + 4, "I", 1),
    "compat": lambda: patched(SUPER + 8, "I", 7),
    "block size": lambda: patched(SUPER + 12, "B", 12),
    "superblock slots": lambda: patched(SUPER + 13, "B", 1),
    "root": lambda: patched(SUPER + 14, "H", 0xFFFF),
    "root in the superblock": lambda: patched(SUPER + 14, "H", 32),
    "root is a file": lambda: patched(SUPER + 14, "H", nid(b"null")),
    "inodes": lambda: patched(SUPER + 16, "Q", 76),
    "blocks": lambda: patched(SUPER + 36, "I", 1),
    "meta block": lambda: patched(SUPER + 40, "I", 1),
    "shared xattrs": lambda: patched(SUPER + 44, "I", 1),
    "features": lambda: patched(SUPER + 80, "I", 0xD),
    "compression": lambda: patched(SUPER + 84, "H", 1),
    "devices": lambda: patched(SUPER + 86, "H", 2),
    "device table": lambda: patched(SUPER + 88, "H", 10),
    "directory blocks": lambda: patched(SUPER + 90, "B", 1),
    "packed inode": lambda: patched(SUPER + 96, "Q", 1),
    "device too large": lambda: patched(fmt.DEVICE_TABLE + 64, "I", LAYER // 512 + 1),
    "device mapped": lambda: patched(fmt.DEVICE_TABLE + 68, "I", 1),
    "device high bits": lambda: patched(fmt.DEVICE_TABLE + 72, "H", 1),
    "cut": lambda: DATA[:-512],
    "longer": lambda: DATA + bytes(512),
    "odd": lambda: DATA + b"x",
    "empty": lambda: b"",
    "compact inode": lambda: field(b"null", 0, "H", 0),
    "compressed": lambda: field(b"sparse", 0, "H", 1 | 3 << 1),
    "regular file in the image": lambda: field(b"sparse", 0, "H", 1),
    "format bits": lambda: field(b"null", 0, "H", 1 | 1 << 4),
    "xattrs beyond": lambda: field(b"null", 2, "H", 0xFFFF),
    "xattr header only": lambda: field(b"null", 2, "H", 1),
    "no kind": lambda: field(b"null", 4, "H", 0o644),
    "kind 15": lambda: field(b"null", 4, "H", 0xF000),
    "device as pipe": lambda: field(b"null", 4, "H", 0o010644),
    "reserved": lambda: field(b"null", 6, "H", 1),
    "device with size": lambda: field(b"null", 8, "Q", 1),
    "negative size": lambda: field(b"hole", 8, "Q", 1 << 63),
    "huge file": lambda: field(b"hole", 8, "Q", (1 << 63) - 1),
    "file beyond its layer": lambda: field(b"dir/file00059", 8, "Q", 1 << 21),
    "pipe with a number": lambda: field(b"pipe", 16, "I", 1),
    "other ino": lambda: field(b"null", 20, "I", 1),
    "nanoseconds": lambda: field(b"null", 40, "I", 10**9),
    "no links": lambda: field(b"null", 44, "I", 0),
    "more links": lambda: field(b"null", 44, "I", 2),
    "fewer links": lambda: field(b"hard", 44, "I", 1),
    "directory of one link": lambda: field(b"dir/sub", 44, "I", 1),
    "more subdirectories": lambda: field(b"dir", 44, "I", 9),
    "fewer subdirectories": lambda: field(b"dir", 44, "I", 2),
    "root's links": lambda: field(b"", 44, "I", 0xFFFFFFFF),
    "empty directory": lambda: field(b"dir/sub", 8, "Q", 0),
    "endless directory": lambda: field(b"dir", 8, "Q", 1 << 62),
    "long directory": lambda: field(b"dir", 8, "Q", 512 * 1000),
    "directory elsewhere": lambda: field(b"dir", 16, "I", 0xFFFFFFF0),
    "directory in the superblock": lambda: field(b"dir", 16, "I", 2),
    "needless block": lambda: field(b"short", 16, "I", 3),
    "chunk format": lambda: field(b"hole", 16, "H", 0x40),
    "no chunk indexes": lambda: field(b"hole", 16, "H", 0x1F),
    "small chunks": lambda: field(b"hole", 16, "H", 0x20),
    "chunk advise": lambda: field(b"hole", 64, "H", 1),
    "hole of a device": lambda: field(b"hole", 66, "H", 1),
    "unknown device": lambda: field(b"dir/file00059", 66, "H", 2),
    "beyond the device": lambda: field(b"dir/file00059", 68, "I", LAYER // 512),
    "metadata as data": lambda: patched(nid(b"dir/file00059") * 32 + 66, "HI", 0, 2),
    "data beyond the image": lambda: patched(nid(b"dir/file00059") * 32 + 66, "HI", 0, 1 << 31),
    "empty link": lambda: field(b"short", 8, "Q", 0),
    "long link": lambda: field(b"long", 8, "Q", 4096),
    "link with NUL": lambda: patched(IMAGE.inode(nid(b"short")).body + 3, "B", 0),
    "shared xattr count": lambda: field(b"cap", 68, "B", 1),
    "xattr prefix": lambda: field(b"cap", 77, "B", 5),
    "long xattr prefix": lambda: field(b"cap", 77, "B", 0x81),
    "xattr value": lambda: field(b"cap", 78, "H", 0xFFFF),
    "xattr name": lambda: field(b"cap", 76, "B", 0xFF),
    "acl with a name": lambda: field(b"cap", 77, "B", 2),
    "xattr order": lambda: field(b"cap", 77, "B", 6),
    "first name": lambda: patched(dirents(b"dir") + 8, "H", 0),
    "first name unaligned": lambda: patched(dirents(b"dir") + 8, "H", 25),
    "first name far": lambda: patched(dirents(b"dir") + 8, "H", 516),
    "second name": lambda: patched(dirents(b"dir") + 20, "H", 0xFFFF),
    "dot elsewhere": lambda: patched(dirents(b"dir"), "Q", nid(b"")),
    "dot of another type": lambda: patched(dirents(b"dir") + 10, "B", 1),
    "parent elsewhere": lambda: patched(dirents(b"dir") + 12, "Q", nid(b"dir")),
    "name reserved": lambda: patched(dirents(b"dir") + 11, "B", 1),
    "type": lambda: patched(dirents(b"dir") + 24 + 10, "B", 2),
    "child outside": lambda: patched(dirents(b"dir") + 24, "Q", 1 << 63),
    "child in the superblock": lambda: patched(dirents(b"dir") + 24, "Q", 33),
    "child between": lambda: patched(dirents(b"dir") + 24, "Q", nid(b"dir/file00003") + 1),
    "child twice": lambda: patched(dirents(b"dir") + 24, "Q", nid(b"dir/file00003")),
    "cycle": lambda: patched(dirents(b"dir") + 24, "QHB", nid(b""), 0, 2),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_refused(name: str) -> None:
    forged = FORGERIES[name]()
    assert forged != DATA
    with pytest.raises(IndexFormatError):
        check_erofs(forged, [LAYER])


def text(old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old in DATA
    return DATA.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"file00005", b"file/0005"),
        (b"file00005", b"file\x000005"),
        (b"file00005file00006", b"file00006file00005"),
        (b"file00005", b"file00006"),
        (b"...", b"../"),
        (b"...", b"\0.."),
        (b"capability", b"capabili\0y"),
    ],
)
def test_forged_names_are_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(IndexFormatError):
        check_erofs(text(old, new), [LAYER])


@pytest.mark.parametrize("name", [b"trusted.overlay.opaque", b"user.overlay.redirect"])
def test_xattrs_for_overlayfs_are_refused(name: bytes) -> None:
    root = sample(8)
    child = (root.children or {})[b"null"]
    object.__setattr__(child.entry, "xattrs", ((name, b"y"),))
    with pytest.raises(IndexFormatError, match="overlayfs"):
        check_erofs(write_erofs(root, [LAYER]), [LAYER])


def test_other_layers_are_refused() -> None:
    for sizes in ([], [LAYER - 512], [LAYER, 0]):
        with pytest.raises(IndexFormatError):
            check_erofs(DATA, sizes)
    check_erofs(DATA, [LAYER - 511])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=5))
def test_random_damage_passes_or_is_refused(flips: list[tuple[int, int]]) -> None:
    data = bytearray(DATA)
    for at, value in flips:
        data[at % len(data)] = value
    try:
        check_erofs(bytes(data), [LAYER])
    except IndexFormatError:
        return
    _read_everything(ErofsImage(bytes(data)))


def _read_everything(image: ErofsImage) -> None:
    """What passes the gate must be readable to the end."""
    todo = [image.root]
    while todo:
        here = todo.pop()
        inode = image.inode(here)
        image.xattrs(here)
        kind = inode.mode >> 12
        if kind == 4:
            for _, name, child in image.entries(here):
                for _ in range(3):  # from the second question on a directory is remembered
                    assert image.lookup(here, name) == child
                todo.append(child)
        elif kind == 10:
            image.readlink(here)
        elif kind == 8:
            image.extents(here, 0, inode.size)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=4096))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(IndexFormatError):
        check_erofs(data, [LAYER])


def test_hostile_tables_are_refused_soon() -> None:
    # inodes that all claim the same long table of xattrs or chunks
    data = bytearray(write_erofs(sample(20_000), [1 << 30]))
    image = ErofsImage(bytes(data))
    for _, _, child in image.entries(image.resolve(b"dir")):
        struct.pack_into("<H", data, child * 32 + 2, 0xFFFF)
    start = time.process_time()
    with pytest.raises(IndexFormatError):
        check_erofs(bytes(data), [1 << 30])
    assert time.process_time() - start < paced(5)
