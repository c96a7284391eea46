import io
import tarfile

from clip_runc.index.erofs_write import write_erofs
from clip_runc.index.tar import TarScanner
from clip_runc.index.tree import flatten
from clip_runc.index.tree_diff import ADDED, CHANGED, REMOVED, Tree, diff_trees


def member(
    name: str, content: bytes | None = b"", **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mtime = 1
    if content is None:
        info.type = tarfile.DIRTYPE
    info.size = len(content or b"")
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content or b""


def tree(*members: tuple[tarfile.TarInfo, bytes], diff_id: str = "one") -> Tree:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    data = out.getvalue()
    scanner = TarScanner()
    scanner.feed(data)
    return Tree(write_erofs(flatten([scanner.close()]), [len(data)], ["00" * 32]), [diff_id])


def diff(old: Tree, new: Tree, *, strict: bool = False) -> dict[bytes, tuple[str, set[str]]]:
    return {
        change.path: (change.kind, set(change.attributes))
        for change in diff_trees(old, new, strict=strict)
    }


def test_added_removed_and_what_lies_below():
    old = tree(member("a"), member("old", None), member("old/x"), member("old/sub/y"))
    new = tree(member("a"), member("z/deep/file"))
    assert diff(old, new) == {
        b"/old": (REMOVED, set()),
        b"/old/sub": (REMOVED, set()),
        b"/old/sub/y": (REMOVED, set()),
        b"/old/x": (REMOVED, set()),
        b"/z": (ADDED, set()),
        b"/z/deep": (ADDED, set()),
        b"/z/deep/file": (ADDED, set()),
    }
    assert diff(old, old) == diff(old, old, strict=True) == {}


def test_each_attribute_has_a_name():
    old = [
        member("mode", mode=0o755),
        member("owner", uid=1),
        member("time"),
        member("link", type=tarfile.SYMTYPE, linkname="a"),
        member("node", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("type"),
        member("cap", pax_headers={"SCHILY.xattr.user.a": "1"}),
        member("size", b"12"),
        member("hard"),
    ]
    new = [
        member("mode", mode=0o4755),
        member("owner", uid=70000, gid=5),
        member("time", mtime=2),
        member("link", type=tarfile.SYMTYPE, linkname="b"),
        member("node", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        member("type", type=tarfile.FIFOTYPE),
        member("cap", pax_headers={"SCHILY.xattr.user.b": "1"}),
        member("size", b"123"),
        member("hard"),
        member("hard2", type=tarfile.LNKTYPE, linkname="hard"),
    ]
    found = diff(tree(*old), tree(*new))
    assert found.pop(b"/hard2") == (ADDED, set())
    assert all(kind == CHANGED for kind, _ in found.values())
    assert {path.decode(): names for path, (_, names) in found.items()} == {
        "/mode": {"mode"},
        "/owner": {"uid", "gid"},
        "/time": {"mtime_ns"},
        "/link": {"target"},
        "/node": {"device"},
        "/type": {"type", "size"},
        "/cap": {"xattr user.a", "xattr user.b"},
        "/size": {"size", "data"},
        "/hard": {"links"},
    }


def test_data_elsewhere():
    old = tree(member("a", b"x" * 600), member("b", b"y" * 600))
    moved = tree(member("b", b"y" * 600), member("a", b"x" * 600))
    other = tree(member("a", b"x" * 600), member("b", b"y" * 600), diff_id="two")
    assert diff(old, moved) == diff(old, other) == {}
    both = {b"/a": (CHANGED, {"data"}), b"/b": (CHANGED, {"data"})}
    assert diff(old, moved, strict=True) == diff(old, other, strict=True) == both
    (change,) = diff_trees(old, tree(member("a", b"x" * 600), member("b", b"y" * 600, mtime=2)))
    assert set(change.attributes) == {"mtime_ns"}, "the same bytes of the same layer"


def test_a_directory_that_becomes_a_file():
    old, new = tree(member("a", None), member("a/b")), tree(member("a"))
    found = diff(old, new)
    assert set(found) == {b"/a", b"/a/b"}
    assert found[b"/a/b"] == (REMOVED, set())
    assert {"type", "links", "size"} <= found[b"/a"][1]
