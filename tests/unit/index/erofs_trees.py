"""Random trees for the tests of the EROFS modules."""

from __future__ import annotations

import stat

from hypothesis import strategies as st

from clip_runc.index.model import Entry, Extent
from clip_runc.index.tree import Node, flatten

LAYER = 1 << 20

_NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"!", b"..a", b"\xff", b"n" * 255]),
    st.binary(min_size=1, max_size=12).filter(
        lambda name: (
            not set(name) & set(b"/\0")
            and name not in (b".", b"..")
            and not name.startswith(b".wh.")
        )
    ),
)
_XATTRS = st.dictionaries(
    st.sampled_from(
        [
            b"user.a",
            b"user.bb",
            b"security.capability",
            b"trusted.t",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
            b"user." + b"x" * 250,
        ]
    ),
    st.binary(max_size=700),
    max_size=3,
).map(lambda found: tuple(sorted(found.items())))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    path = b"/".join(draw(st.lists(_NAMES, min_size=1, max_size=3)))
    kind = draw(
        st.sampled_from(
            [
                stat.S_IFREG,
                stat.S_IFREG,
                stat.S_IFDIR,
                stat.S_IFLNK,
                stat.S_IFCHR,
                stat.S_IFIFO,
                stat.S_IFSOCK,
            ]
        )
    )
    size, extents = 0, ()
    if kind == stat.S_IFREG:
        size = draw(st.integers(0, 5000))
        if size and draw(st.booleans()):
            extents = (Extent(0, 512 * draw(st.integers(0, 100)), size),)
        elif size > 1024:
            extents = (Extent(512, 512 * draw(st.integers(0, 100)), 512),)
    return Entry(
        path,
        kind,
        draw(st.integers(0, 0o7777)),
        draw(st.integers(0, 0xFFFFFFFE)),
        draw(st.integers(0, 0xFFFFFFFE)),
        size,
        draw(st.integers(-(1 << 63), (1 << 63) - 1)),
        b"t" * draw(st.integers(1, 1500)) if kind == stat.S_IFLNK else b"",
        (draw(st.integers(0, 4095)), draw(st.integers(0, 0xFFFFF)))
        if kind == stat.S_IFCHR
        else (0, 0),
        draw(_XATTRS),
        extents,
    )


@st.composite
def trees(draw: st.DrawFn) -> Node:
    """A tree of two layers of ``LAYER`` bytes, hard links among them."""
    first = draw(st.lists(entries(), max_size=12))
    second = draw(st.lists(entries(), max_size=6))
    # a link as parent is the tree tests' matter: here its target would be a long name
    links = {entry.path for entry in first + second if entry.kind == stat.S_IFLNK}
    layers = [
        [entry for entry in layer if not _below(entry.path, links)] for layer in (first, second)
    ]
    root = flatten(layers)
    files = [path for path, node in root.walk() if node.children is None]
    if files:
        count = draw(st.integers(0, 3))
        layers.append(
            [Entry(b"link%d" % n, 0, link=draw(st.sampled_from(files))) for n in range(count)]
        )
        root = flatten(layers)
    return root


def _below(path: bytes, links: set[bytes]) -> bool:
    parts = path.split(b"/")
    return any(b"/".join(parts[:n]) in links for n in range(1, len(parts)))


def sample(count: int = 100) -> Node:
    """A fixed tree of every kind, ``count`` files in one of its directories."""
    layer = [
        Entry(b"dir", stat.S_IFDIR, 0o1777, 1000, 1000, 0, 5),
        *(
            Entry(b"dir/file%05d" % n, stat.S_IFREG, 0o644, size=n, extents=_extents(n))
            for n in range(count)
        ),
        Entry(b"dir/sub/deep", stat.S_IFREG, 0o4755, size=600, extents=(Extent(0, 512, 600),)),
        Entry(b"short", stat.S_IFLNK, 0o777, link=b"dir/file00001"),
        Entry(b"long", stat.S_IFLNK, 0o777, link=b"l" * 2000),
        Entry(b"loop", stat.S_IFLNK, 0o777, link=b"loop"),
        Entry(b"abs", stat.S_IFLNK, 0o777, link=b"/../dir/sub"),
        Entry(b"hard", 0, link=b"dir/file00007"),
        Entry(b"null", stat.S_IFCHR, 0o666, rdev=(1, 3)),
        Entry(b"disk", stat.S_IFBLK, 0o660, rdev=(259, 70000)),
        Entry(b"pipe", stat.S_IFIFO),
        Entry(b"sock", stat.S_IFSOCK),
        Entry(
            b"cap",
            stat.S_IFREG,
            xattrs=(
                (b"security.capability", b"\1" * 20),
                (b"user.x", b""),
                (b"user.y", b"y" * 900),
            ),
        ),
        Entry(
            b"sparse",
            stat.S_IFREG,
            size=20_000,
            extents=(Extent(4096, 1024, 512), Extent(8192, ~0, 1024), Extent(19_968, 4096, 32)),
            literal=b"L" * 1024,
        ),
        Entry(b"hole", stat.S_IFREG, size=1 << 22),
    ]
    return flatten([layer])


def _extents(size: int) -> tuple[Extent, ...]:
    return (Extent(0, 2048, size),) if size else ()
