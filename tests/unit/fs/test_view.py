"""The tree of inodes over real EROFS bytes, with readers that hold their layers."""

from __future__ import annotations

import errno
import stat
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import IndexFormatError
from clip_runc.fs import view as v
from clip_runc.index.erofs_write import write_erofs
from clip_runc.index.model import Entry, Extent
from clip_runc.index.tree import flatten

LAYER = bytes(range(256)) * 6 + b"tail"  # 1540 bytes, not a multiple of 512
HEX = "ab" * 32


class Held:
    """A reader that has everything."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def chunk_at(self, offset: int) -> int:
        return offset // 4096

    def read_cached(self, offset: int, length: int) -> bytes | None:
        return self.data[offset : offset + length]

    def request(self, offset: int, length: int) -> Future[bytes]:
        raise AssertionError("everything is here")


ENTRIES = [
    Entry(b"", stat.S_IFDIR, 0o755),
    Entry(b"dir", stat.S_IFDIR, 0o1777),
    Entry(b"dir/file", stat.S_IFREG, 0o4755, 70000, 7, 1000, 5, extents=(Extent(0, 512, 1000),)),
    Entry(b"link", stat.S_IFLNK, 0o777, link=b"dir/file"),
    Entry(b"null", stat.S_IFCHR, 0o666, rdev=(1, 3)),
    Entry(b"x", stat.S_IFREG, xattrs=((b"user.a", b"1"), (b"trusted.overlay.opaque", b"y"))),
]
EROFS = write_erofs(flatten([ENTRIES]), [len(LAYER)])


def image(
    slot: int = 1, manifest: str = HEX, name: str = "cd" * 32, data: bytes = EROFS
) -> v.Image:
    layer = v.LayerFile(name, "ef" * 32, Held(LAYER))
    return v.Image(manifest, slot, [layer], lambda: data)


@pytest.fixture
def view() -> v.View:
    found = v.View()
    found.attach(image())
    return found


def path(view: v.View, *names: bytes) -> v.Attributes:
    found = view.attributes(v.ROOT)
    for name in names:
        child = view.lookup(found.ino, name)
        assert child is not None, name
        found = child
    return found


def content(view: v.View, ino: int, offset: int, length: int) -> bytes:
    out = b""
    for piece in view.pieces(ino, offset, length):
        data = piece.data or bytes(piece.length)
        if piece.reader is not None:
            data = piece.reader.read_cached(piece.offset, piece.length) or b""
        assert len(data) == piece.length
        out += data
    return out


ROOT_OF_IMAGE = (b"images", HEX.encode())


def test_attributes_and_data_of_a_file(view: v.View) -> None:
    found = path(view, *ROOT_OF_IMAGE, b"dir", b"file")
    assert (found.mode, found.uid, found.gid) == (stat.S_IFREG | 0o4755, 70000, 7)
    assert (found.size, found.mtime_ns, found.nlink) == (1000, 5, 1)
    assert content(view, found.ino, 0, 4096) == LAYER[512:1512]
    assert content(view, found.ino, 990, 4096) == LAYER[1502:1512]
    assert content(view, found.ino, 1000, 10) == b""


def test_links_devices_and_xattrs(view: v.View) -> None:
    assert view.readlink(path(view, *ROOT_OF_IMAGE, b"link").ino) == b"dir/file"
    assert path(view, *ROOT_OF_IMAGE, b"null").rdev == (1, 3)
    assert view.xattrs(path(view, *ROOT_OF_IMAGE, b"x").ino) == {b"user.a": b"1"}
    with pytest.raises(OSError) as caught:
        view.readlink(path(view, *ROOT_OF_IMAGE, b"x").ino)
    assert caught.value.errno == errno.EINVAL


def test_a_layer_is_padded_with_zeros(view: v.View) -> None:
    found = path(view, b"layers", b"cd" * 32)
    assert (found.size, found.mode) == (2048, stat.S_IFREG | 0o400)
    assert content(view, found.ino, 0, 9999) == LAYER + bytes(508)
    assert content(view, found.ino, 1539, 3) == b"l\0\0"
    assert content(view, found.ino, 2048, 1) == b""


def test_a_layer_is_found_by_its_diff_id_while_that_is_clear(view: v.View) -> None:
    by_diff = path(view, b"layers", b"ef" * 32)
    assert by_diff.ino == path(view, b"layers", b"cd" * 32).ino
    assert not by_diff.lasting
    view.attach(image(2, "12" * 32, name="34" * 32))
    with pytest.raises(FileNotFoundError):
        view.lookup(v.LAYERS, b"ef" * 32)
    view.detach("12" * 32)
    assert view.lookup(v.LAYERS, b"ef" * 32) is not None


def test_listing_goes_on_at_every_cookie(view: v.View) -> None:
    for ino in (v.ROOT, v.LAYERS, v.IMAGES, path(view, *ROOT_OF_IMAGE).ino):
        whole = list(view.entries(ino, 0))
        assert [name for _, name, _ in whole][:2] == [b".", b".."]
        for number, (cookie, _, _) in enumerate(whole):
            assert list(view.entries(ino, cookie)) == whole[number + 1 :]


def test_dots_mean_here_and_above(view: v.View) -> None:
    top = path(view, *ROOT_OF_IMAGE)
    below = path(view, *ROOT_OF_IMAGE, b"dir")
    assert [a.ino for _, _, a in view.entries(top.ino, 0)][:2] == [top.ino, v.IMAGES]
    assert [a.ino for _, _, a in view.entries(below.ino, 0)][:2] == [below.ino, top.ino]


def test_negative_answers_last_only_inside_an_image(view: v.View) -> None:
    assert view.lookup(path(view, *ROOT_OF_IMAGE).ino, b"nothing") is None
    for parent in (v.LAYERS, v.IMAGES):
        with pytest.raises(FileNotFoundError):
            view.lookup(parent, b"nothing")


def test_numbers_do_not_depend_on_the_order_of_attaching() -> None:
    one, other = v.View(), v.View()
    one.attach(image(5))
    other.attach(image(3, "12" * 32))
    other.attach(image(5))
    assert path(one, *ROOT_OF_IMAGE, b"dir") == path(other, *ROOT_OF_IMAGE, b"dir")


def test_detached_is_stale(view: v.View) -> None:
    ino = path(view, *ROOT_OF_IMAGE, b"dir", b"file").ino
    layer = path(view, b"layers", b"cd" * 32).ino
    view.detach(HEX)
    view.detach(HEX)
    for number in (ino, layer):
        with pytest.raises(OSError) as caught:
            view.attributes(number)
        assert caught.value.errno == errno.ESTALE


def test_layers_with_one_number_are_refused(view: v.View) -> None:
    with pytest.raises(IndexFormatError, match="share their first 62 bits"):
        view.attach(image(2, "12" * 32, name="cd" * 31 + "00"))
    assert view.image("12" * 32) is None


def test_more_devices_than_layers_are_refused() -> None:
    view = v.View()
    view.attach(v.Image(HEX, 1, [], lambda: EROFS))
    with pytest.raises(IndexFormatError, match="1 devices, the image 0 layers"):
        view.lookup(v.IMAGES, HEX.encode())


def test_data_beyond_a_layer_are_refused() -> None:
    view = v.View()
    layer = v.LayerFile("cd" * 32, "ef" * 32, Held(LAYER[:600]))
    view.attach(v.Image(HEX, 1, [layer], lambda: EROFS))
    ino = path(view, *ROOT_OF_IMAGE, b"dir", b"file").ino
    with pytest.raises(IndexFormatError, match="of layer efef"):
        view.pieces(ino, 0, 1000)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(EROFS) - 1), st.integers(0, 255)), max_size=20))
def test_a_damaged_image_raises_nothing_unexpected(damage: list[tuple[int, int]]) -> None:
    data = bytearray(EROFS)
    for offset, value in damage:
        data[offset] = value
    view = v.View()
    view.attach(image(data=bytes(data)))
    allowed = (IndexFormatError, OSError)
    try:
        todo = [path(view, *ROOT_OF_IMAGE).ino]
    except allowed:
        return
    for ino in todo:
        for call in (view.readlink, view.xattrs, lambda i: view.pieces(i, 0, 1 << 20)):
            try:
                call(ino)
            except allowed:
                continue
        try:
            todo += [a.ino for _, _, a in view.entries(ino, 2) if len(todo) < 50]
        except allowed:
            continue


@given(st.integers(0, (1 << 64) - 1))
def test_any_inode_number_has_an_answer(ino: int) -> None:
    view = v.View()
    view.attach(image())
    for call in (
        view.attributes, view.readlink, view.xattrs, lambda i: view.pieces(i, 0, 10),
        lambda i: list(view.entries(i, 0)), lambda i: view.lookup(i, b"a"),
    ):  # fmt: skip
        try:
            call(ino)
        except (OSError, IndexFormatError):
            continue
    assert view.describe(ino)
