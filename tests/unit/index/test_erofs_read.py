"""Names, cookies, links and bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import IndexFormatError
from clip_runc.index import erofs_read
from clip_runc.index.erofs_read import ErofsImage
from clip_runc.index.erofs_write import write_erofs
from tests.unit.index.erofs_trees import LAYER, sample

DATA = write_erofs(sample(300), [LAYER])
IMAGE = ErofsImage(DATA)


def test_missing_names() -> None:
    directory = IMAGE.resolve(b"dir")
    for name in (b"", b"file", b"file00000x", b"zzz", b"\0", b"file00299/"):
        assert IMAGE.lookup(directory, name) is None
    assert IMAGE.lookup(IMAGE.resolve(b"null"), b"x") is None


def test_few_directories_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that are asked once, nor large ones, and the longest unasked goes."""
    image = ErofsImage(DATA)
    listings = image._listings
    directory, root = image.resolve(b"dir"), image.root
    assert set(listings.values()) == {None}
    image.lookup(root, b"dir")
    image.lookup(directory, b"x")
    image.lookup(directory, b"x")
    assert listings[directory] is not None
    monkeypatch.setattr(erofs_read, "_LISTINGS", 1)
    listings.clear()
    for nid in (root, directory, root, directory):
        image.lookup(nid, b"x")
        assert list(listings) == [nid]
    monkeypatch.setattr(erofs_read, "_LISTINGS", 2)
    listings.clear()
    other = image.resolve(b"null")
    for nid in (root, root, directory, root):
        image.lookup(nid, b"x")
    image._listing(image.inode(other))
    assert list(listings) == [root, other]
    listings.clear()
    monkeypatch.setattr(erofs_read, "_LISTING_BYTES", 100)
    image.lookup(directory, b"x")
    assert not listings


def test_listing_goes_on_after_any_cookie() -> None:
    directory = IMAGE.resolve(b"dir")
    found = list(IMAGE.entries(directory))
    assert len(found) == 301
    for number, (cookie, _, _) in enumerate(found):
        assert list(IMAGE.entries(directory, cookie)) == found[number + 1 :]


def test_paths() -> None:
    deep = IMAGE.resolve(b"dir/sub/deep")
    assert IMAGE.resolve(b"/./dir//sub/../../../dir/sub/deep/") == deep
    assert IMAGE.resolve(b"") == IMAGE.resolve(b"/..") == IMAGE.root
    assert IMAGE.resolve(b"abs/deep", follow=True) == deep
    assert IMAGE.resolve(b"short", follow=True) == IMAGE.resolve(b"dir/file00001")
    assert IMAGE.readlink(IMAGE.resolve(b"short")) == b"dir/file00001"


@pytest.mark.parametrize("path", [b"none", b"dir/none", b"null/x", b"abs/deep"])
def test_paths_that_are_not_there(path: bytes) -> None:
    with pytest.raises(KeyError):
        IMAGE.resolve(path)


def test_endless_links() -> None:
    with pytest.raises(KeyError):
        IMAGE.resolve(b"loop/x", follow=True)


@given(st.integers(-5, 25_000), st.integers(0, 25_000))
def test_parts_of_a_file_add_up(offset: int, length: int) -> None:
    nid = IMAGE.resolve(b"sparse")
    whole = _bytes(IMAGE.extents(nid, 0, 20_000))
    part = _bytes(IMAGE.extents(nid, offset, length))
    assert part == (whole[offset : offset + length] if offset >= 0 else [])


def _bytes(extents: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    return [
        (device, at + step if device >= 0 else 0)
        for device, at, length in extents
        for step in range(length)
    ]


def test_what_is_asked_of_the_wrong_kind() -> None:
    with pytest.raises(IndexFormatError):
        IMAGE.readlink(IMAGE.resolve(b"dir"))
    with pytest.raises(IndexFormatError):
        list(IMAGE.entries(IMAGE.resolve(b"null")))
    for nid in (-1, 1 << 60, len(DATA) // 32):
        with pytest.raises(IndexFormatError):
            IMAGE.inode(nid)


@pytest.mark.parametrize("data", [b"", bytes(4096), DATA[:1024]])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(IndexFormatError):
        ErofsImage(data)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), max_size=8))
def test_damaged_images_raise_nothing_else(flips: list[tuple[int, int]]) -> None:
    small = bytearray(write_erofs(sample(40), [LAYER]))
    for at, value in flips:
        small[1152 + at % (len(small) - 1152)] = value
    image = ErofsImage(bytes(small))
    seen: set[int] = set()
    todo = [image.root]
    while todo and len(seen) < 1000:
        nid = todo.pop()
        if nid in seen:
            continue
        seen.add(nid)
        for read in (
            lambda nid: todo.extend(child for _, _, child in image.entries(nid)),
            image.xattrs,
            image.readlink,
            lambda nid: image.lookup(nid, b"file00020"),
            lambda nid: image.lookup(nid, b"file00020"),
            lambda nid: image.extents(nid, 0, 1 << 20),
            lambda nid: image.extents(nid, 1 << 62, 1 << 20),
        ):
            try:
                read(nid)
            except IndexFormatError:
                continue
