"""Written and read again: every field of every inode."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from clip_runc.errors import LayerFormatError
from clip_runc.index import erofs_format as fmt
from clip_runc.index.erofs_check import check_erofs
from clip_runc.index.erofs_read import ErofsImage
from clip_runc.index.erofs_write import write_erofs
from clip_runc.index.model import Entry, Extent
from clip_runc.index.tree import Node, flatten
from tests.unit.index.erofs_trees import LAYER, sample, trees

SIZES = [LAYER, LAYER, 0]


def compare(image: ErofsImage, root: Node) -> None:
    """Walk both."""
    nids: dict[int, int] = {}
    names: dict[int, int] = {}
    todo = [(image.root, root, image.root)]
    while todo:
        nid, node, parent = todo.pop()
        entry = node.entry
        assert nids.setdefault(id(node), nid) == nid
        names[nid] = names.get(nid, 0) + 1
        inode = image.inode(nid)
        assert (inode.mode, inode.uid, inode.gid) == (node.mode, entry.uid, entry.gid)
        assert (inode.mtime_ns, inode.rdev) == (entry.mtime_ns, entry.rdev)
        assert image.xattrs(nid) == dict(entry.xattrs)
        if node.children is not None:
            found = [(name, child) for _, name, child in image.entries(nid)]
            assert [name for name, _ in found] == sorted(node.children)
            subdirs = sum(child.children is not None for child in node.children.values())
            assert inode.nlink == 2 + subdirs
            assert image.lookup(nid, b".") == nid
            assert image.lookup(nid, b"..") == parent
            for name, child in found:
                assert image.lookup(nid, name) == child
                todo.append((child, node.children[name], nid))
        elif entry.link:
            assert image.readlink(nid) == entry.link
        elif entry.size:
            assert expand(image.extents(nid, 0, entry.size + 9)) == expected(node)
    for nid, count in names.items():
        inode = image.inode(nid)
        assert inode.mode >> 12 == 4 or inode.nlink == count


def expand(extents: list[tuple[int, int, int]]) -> list[tuple[int, int] | None]:
    """Where each 512 bytes lie; of the image itself only that they do."""
    return [
        None if device < 0 else (device, at + step if device else 0)
        for device, at, length in extents
        for step in range(0, length, 512)
    ]


def expected(node: Node) -> list[tuple[int, int] | None]:
    blocks: list[tuple[int, int] | None] = [None] * -(-node.entry.size // 512)
    for extent in node.entry.extents:
        for step in range(0, extent.length, 512):
            literal = extent.stream < 0
            place = (0, 0) if literal else (node.layer + 1, extent.stream + step)
            blocks[(extent.logical + step) // 512] = place
    return blocks


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
def test_random_trees(root: Node) -> None:
    data = write_erofs(root, SIZES)
    stats = check_erofs(data, SIZES)
    image = ErofsImage(data)
    compare(image, root)
    assert stats.inodes == image.inodes
    assert write_erofs(root, SIZES) == data


@pytest.mark.parametrize("count", [0, 1, 30, 31, 32, 500])
def test_the_sample(count: int) -> None:
    root = sample(max(count, 8))
    data = write_erofs(root, SIZES)
    stats = check_erofs(data, SIZES)
    compare(ErofsImage(data), root)
    assert (stats.dirs, stats.symlinks, stats.others) == (3, 4, 4)
    assert stats.files == max(count, 8) + 4


def test_literal_bytes_are_in_the_image() -> None:
    data = write_erofs(sample(), SIZES)
    image = ErofsImage(data)
    extents = image.extents(image.resolve(b"sparse"), 0, 1 << 20)
    assert [extent for extent in extents if extent[0]] == [
        (-1, 0, 4096),
        (1, 1024, 512),
        (-1, 0, 3584),
        (-1, 0, 10752),
        (1, 4096, 32),
    ]
    ((_, at, length),) = [extent for extent in extents if extent[0] == 0]
    assert data[at : at + length] == b"L" * 1024


def test_no_layers_and_an_empty_root() -> None:
    data = write_erofs(flatten([]), [])
    assert check_erofs(data, []).inodes == 1
    assert list(ErofsImage(data).entries(ErofsImage(data).root)) == []


def test_device_tags() -> None:
    data = write_erofs(flatten([]), [512], ["a" * 64])
    assert data[fmt.DEVICE_TABLE : fmt.DEVICE_TABLE + 64] == b"a" * 64
    check_erofs(data, [512])


def test_the_volume_is_named_after_its_content() -> None:
    one, two = write_erofs(sample(8), SIZES), write_erofs(sample(9), SIZES)
    where = slice(fmt.UUID_OFFSET, fmt.UUID_OFFSET + 16)
    assert one[where] != two[where] != bytes(16)


def test_data_beyond_the_layer_are_refused() -> None:
    root = flatten([[Entry(b"f", 0o100000, size=10, extents=(Extent(0, 512, 10),))]])
    assert write_erofs(root, [522])
    with pytest.raises(LayerFormatError, match="beyond the end"):
        write_erofs(root, [521])


def test_unknown_xattr_prefixes_are_refused() -> None:
    with pytest.raises(LayerFormatError, match="prefix"):
        write_erofs(flatten([[Entry(b"f", 0o100000, xattrs=((b"os2.a", b""),))]]), [0])


def test_more_layers_than_the_format_has_room_for() -> None:
    with pytest.raises(LayerFormatError, match="layers"):
        write_erofs(flatten([]), [0] * 70_000)
    with pytest.raises(LayerFormatError, match="layers"):
        write_erofs(flatten([]), [0] * 60_000)
