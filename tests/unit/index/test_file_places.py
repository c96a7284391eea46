"""Every byte of a file is found again by its place in the layer; nothing else is."""

from __future__ import annotations

import stat

from hypothesis import given
from hypothesis import strategies as st

from clip_runc.index.erofs_read import ErofsImage
from clip_runc.index.erofs_write import write_erofs
from clip_runc.index.file_places import FilePlaces
from clip_runc.index.model import Entry, Extent
from clip_runc.index.tree import flatten


def file(path: str, place: int, size: int) -> Entry:
    return Entry(
        path.encode(), stat.S_IFREG, mode=0o644, size=size, extents=(Extent(0, place, size),)
    )


SIZES = st.lists(st.integers(1, 3000), min_size=1, max_size=8)


@given(SIZES, st.data())
def test_each_byte_names_its_file(sizes: list[int], data: st.DataObject) -> None:
    entries, places, at = [], [], 512
    for number, size in enumerate(sizes):
        entries.append(file(f"d{number % 3}/f{number}", at, size))
        places.append((at, at + size, f"/d{number % 3}/f{number}".encode()))
        at += -(-size // 512) * 512 + 512  # a header between them
    found = FilePlaces(ErofsImage(write_erofs(flatten([entries]), [at])))
    low, high, path = data.draw(st.sampled_from(places))
    assert found.path(0, data.draw(st.integers(low, high - 1))) == path
    assert found.path(0, low - 1) == b""
    assert found.path(0, 0) == b""
    assert found.path(1, low) == b""
    assert found.path(0, at + 4096) == b""


def test_a_file_of_a_lower_layer_that_is_hidden_has_no_name() -> None:
    lower, upper = [file("a", 512, 100), file("b", 1536, 100)], [file("a", 512, 50)]
    found = FilePlaces(ErofsImage(write_erofs(flatten([lower, upper]), [4096, 4096])))
    assert (found.path(0, 512), found.path(0, 1536), found.path(1, 512)) == (b"", b"/b", b"/a")
