"""Layer rules, each as the smallest layers that show it."""

from __future__ import annotations

import stat
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.index.members import clean_path
from clip_runc.index.model import Entry
from clip_runc.index.tree import Node, flatten
from tests.integration.prerequisites import paced


def file(path: str, size: int = 0, **fields: object) -> Entry:
    return replace(Entry(path.encode(), stat.S_IFREG, size=size), **fields)  # type: ignore[arg-type]


def folder(path: str, mode: int = 0o700) -> Entry:
    return Entry(path.encode(), stat.S_IFDIR, mode)


def symlink(path: str, target: str) -> Entry:
    return Entry(path.encode(), stat.S_IFLNK, 0o777, link=target.encode())


def hard(path: str, target: str) -> Entry:
    return Entry(path.encode(), 0, link=target.encode())


def paths(root: Node) -> list[str]:
    return [path.decode() for path, _ in root.walk()]


def at(root: Node, path: str) -> Node:
    return dict(root.walk())[path.encode()]


def test_parents_are_implied() -> None:
    root = flatten([[file("a/b/c")]])
    assert paths(root) == ["a", "a/b", "a/b/c"]
    assert (root.mode, at(root, "a").mode, at(root, "a").entry.mtime_ns) == (0o40755, 0o40755, 0)


def test_parents_may_come_after() -> None:
    root = flatten([[file("a/b"), folder("a", 0o711), Entry(b"", stat.S_IFDIR, 0o555)]])
    assert paths(root) == ["a", "a/b"]
    assert (root.mode, at(root, "a").mode) == (0o40555, 0o40711)


def test_a_repeated_directory_keeps_children() -> None:
    root = flatten([[folder("a"), file("a/x")], [folder("a", 0o1777)], [file("a/y")]])
    assert paths(root) == ["a", "a/x", "a/y"]
    assert at(root, "a").mode == 0o41777


def test_the_last_duplicate_wins() -> None:
    root = flatten([[file("a", 1), file("a", 2)]])
    assert at(root, "a").entry.size == 2


def test_files_and_directories_replace_each_other() -> None:
    lower = [file("d/x"), file("f")]
    root = flatten([lower, [file("d"), folder("f"), file("f/y")]])
    assert paths(root) == ["d", "f", "f/y"]
    root = flatten([lower, [file("f/y")]])
    assert paths(root) == ["d", "d/x", "f", "f/y"]


def test_whiteouts() -> None:
    lower = [file("a/x"), file("a/y"), folder("b"), file("b/z")]
    assert paths(flatten([lower, [file("a/.wh.x"), file(".wh.b"), file(".wh.none")]])) == [
        "a",
        "a/y",
    ]


@pytest.mark.parametrize("order", [1, -1])
def test_whiteouts_do_not_apply_to_their_own_layer(order: int) -> None:
    lower = [folder("d"), file("d/old"), file("f", 1)]
    upper = [file(".wh.d"), file("d/new"), file(".wh.f"), file("f", 2)]
    root = flatten([lower, upper[::order]])
    assert paths(root) == ["d", "d/new", "f"]
    assert at(root, "f").entry.size == 2
    assert at(root, "d").mode == 0o40755  # the lower layer's 0700 went with it
    assert paths(flatten([[*upper[::order]]])) == ["d", "d/new", "f"]


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_opaque_directories_wherever_the_marker_stands(place: int) -> None:
    lower = [folder("d", 0o750), file("d/old"), file("d/sub/old"), file("other")]
    upper = [file("d/new"), file("d/sub/new"), folder("d", 0o711)]
    upper.insert(place, file("d/.wh..wh..opq"))
    root = flatten([lower, upper])
    assert paths(root) == ["d", "d/new", "d/sub", "d/sub/new", "other"]
    assert at(root, "d").mode == 0o40711


def test_an_opaque_directory_that_was_not_there() -> None:
    # as umoci; a marker is no entry, and what is not there needs no hiding
    assert paths(flatten([[file("d/.wh..wh..opq")]])) == []
    assert paths(flatten([[file("d")], [file("d/.wh..wh..opq")]])) == ["d"]
    assert paths(flatten([[file("x")], [file(".wh..wh..opq"), file("y")]])) == ["y"]


def test_aufs_files_are_skipped() -> None:
    assert paths(flatten([[file(".wh..wh.plnk/1"), file(".wh..wh.aufs"), file("a")]])) == ["a"]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh."])
def test_whiteouts_of_no_name_are_refused(name: str) -> None:
    with pytest.raises(LayerFormatError, match="whiteout"):
        flatten([[file("d/x")], [file(name)]])


def test_hard_links_share_the_node() -> None:
    root = flatten([[file("a", 5)], [hard("d/b", "a"), hard("c", "d/b")]])
    assert at(root, "a") is at(root, "d/b") is at(root, "c")
    assert at(root, "c").layer == 0


def test_hard_links_outlive_what_they_link_to() -> None:
    root = flatten([[file("a", 5)], [hard("b", "a"), file(".wh.a")]])
    assert paths(root) == ["b"]
    root = flatten([[file("a", 5), hard("b", "a"), file("a", 6)]])
    assert (at(root, "a").entry.size, at(root, "b").entry.size) == (6, 5)


def test_a_whiteout_spares_a_link_of_its_layer() -> None:
    root = flatten([[file("a", 5), file("b", 6)], [hard("b", "a"), file(".wh.b"), file(".wh.a")]])
    assert paths(root) == ["b"]
    assert at(root, "b").entry.size == 5


def test_opaque_spares_a_link_of_its_layer() -> None:
    root = flatten([[file("a", 5), file("d/x")], [hard("d/b", "a"), file("d/.wh..wh..opq")]])
    assert paths(root) == ["a", "d", "d/b"]


def test_hard_links_to_links_and_to_themselves() -> None:
    root = flatten([[symlink("l", "nowhere"), hard("m", "l"), hard("m", "m")]])
    assert at(root, "m") is at(root, "l")
    assert at(root, "m").entry.kind == stat.S_IFLNK


@pytest.mark.parametrize("target", ["none", "dir", "dir/none", "file/x", ""])
def test_hard_links_to_nothing_are_refused(target: str) -> None:
    with pytest.raises(LayerFormatError, match="hard link"):
        flatten([[folder("dir"), file("file"), hard("x", target)]])


@pytest.mark.parametrize("target", ["usr/lib", "/usr/lib", "../../usr/./lib/", "usr/lib/../lib"])
@pytest.mark.parametrize("split", [True, False])
def test_a_parent_that_is_a_link_is_followed(target: str, split: bool) -> None:
    lower, upper = [folder("usr/lib"), symlink("lib", target)], [file("lib/x")]
    root = flatten([lower, upper] if split else [lower + upper])
    assert paths(root) == ["lib", "usr", "usr/lib", "usr/lib/x"]


def test_following_links_never_leaves_the_image() -> None:
    root = flatten([[symlink("d/up", "../../../../etc"), file("d/up/passwd")]])
    assert paths(root) == ["d", "d/up", "etc", "etc/passwd"]


def test_links_are_followed_for_whiteouts_and_link_targets() -> None:
    lower = [file("usr/lib/x", 3), symlink("lib", "usr/lib")]
    assert paths(flatten([lower, [file("lib/.wh.x")]])) == ["lib", "usr", "usr/lib"]
    assert at(flatten([lower, [hard("y", "lib/x")]]), "y").entry.size == 3


def test_a_link_is_replaced_by_an_entry_of_its_name() -> None:
    root = flatten([[folder("t"), symlink("l", "t")], [file("l/a"), folder("l"), file("l/b")]])
    assert paths(root) == ["l", "l/b", "t", "t/a"]


def test_a_parent_that_is_replaced_is_walked_again() -> None:
    root = flatten([[folder("t"), file("d/a"), symlink("d", "t"), file("d/b")]])
    assert paths(root) == ["d", "t", "t/b"]


@pytest.mark.parametrize(
    "links",
    [
        [symlink("l", "l")],
        [symlink("a", "b"), symlink("b", "a"), symlink("l", "a")],
        [symlink("l", "x/" * 2047), symlink("x", "y/" * 2047)],
        [symlink("l", "/".join(["l"] * 2000))],
    ],
)
def test_endless_links_are_refused(links: list[Entry]) -> None:
    with pytest.raises(LayerFormatError, match="too many symbolic links"):
        flatten([[*links, file("l/x"), file("l/" + "y/" * 2000 + "z")]])


def test_a_link_is_not_followed_into_what_is_not_there() -> None:
    layer = [folder("real"), symlink("link", "missing/../real"), file("link/a")]
    assert paths(flatten([layer])) == ["link", "real", "real/a"]
    assert paths(flatten([[file("f"), symlink("l", "f/../g"), file("l/a")]])) == [
        "f", "g", "g/a", "l",
    ]  # fmt: skip


def test_links_are_followed_as_far_as_securejoin_does() -> None:
    chain = [symlink(f"{n:03}", f"{n + 1:03}") for n in range(256)]
    assert "256/a" in paths(flatten([[*chain, file("001/a")]]))
    with pytest.raises(LayerFormatError):
        flatten([[*chain, file("000/a")]])


def test_a_device_0_0_is_a_whiteout_to_overlayfs() -> None:
    device = Entry(b"a", stat.S_IFCHR)
    assert paths(flatten([[file("a"), file("b")], [device]])) == ["b"]
    assert paths(flatten([[device, replace(device, path=b"c", rdev=(0, 1))]])) == ["c"]
    assert paths(flatten([[replace(device, kind=stat.S_IFBLK)]])) == ["a"]


def test_a_link_has_the_mode_of_all_links() -> None:
    assert at(flatten([[replace(symlink("l", "x"), mode=0o4600)]]), "l").mode == 0o120777


def test_the_root_cannot_be_replaced() -> None:
    with pytest.raises(LayerFormatError):
        flatten([[file("")]])


def test_deep_trees_with_markers_everywhere_cost_their_size_once() -> None:
    parts = [f"{'d/' * depth}" for depth in range(1, 1500)]
    lower = [file(part + "x") for part in parts]
    upper = [entry for part in parts for entry in (folder(part[:-1]), file(part + ".wh..wh..opq"))]
    start = time.process_time()
    assert len(paths(flatten([lower, upper]))) == 1499
    assert len(paths(flatten([lower, upper[::-1]]))) == 1499
    assert time.process_time() - start < paced(5)


_NAMES = st.sampled_from(["a", "b", "a/b", "a/b/c", "b/a", "c", "a/c", ".wh.a", "a/.wh.b"])
_ENTRIES = st.one_of(
    st.builds(file, _NAMES),
    st.builds(folder, _NAMES),
    st.builds(symlink, _NAMES, st.sampled_from(["a", "../b", "/a/b", "b/../c", ".."])),
    st.builds(hard, _NAMES, _NAMES),
    st.builds(file, st.sampled_from([".wh..wh..opq", "a/.wh..wh..opq", "a/b/.wh.c"])),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(_ENTRIES, max_size=12), max_size=3))
def test_any_layers_give_a_tree_or_are_refused(layers: list[list[Entry]]) -> None:
    try:
        root = flatten(layers)
    except LayerFormatError:
        return
    for path, node in root.walk():
        assert clean_path(path) == path
        assert not path.rpartition(b"/")[2].startswith(b".wh.") or node.children is not None
        assert node.layer < len(layers)


@settings(max_examples=200, deadline=None)
@given(st.lists(_ENTRIES, max_size=12), st.lists(_ENTRIES, max_size=12))
def test_an_opaque_root_forgets_the_lower_layers(lower: list[Entry], upper: list[Entry]) -> None:
    marked = [file(".wh..wh..opq"), *upper]
    try:
        assert paths(flatten([lower, marked])) == paths(flatten([[], upper]))
    except LayerFormatError:
        return
