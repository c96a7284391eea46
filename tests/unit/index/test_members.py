"""What every layer's entries go through, wherever they are listed."""

from __future__ import annotations

import stat

import pytest

from clip_runc.errors import LayerFormatError
from clip_runc.index.members import Limits, Members
from clip_runc.index.tar_header import Header


def header(**values) -> Header:
    return Header(b"0", b"a", b"", 0o4755, 1, 2, 0, 3, 0, 0)._replace(**values)


def test_an_entry_is_normalised():
    found = Members()
    values = {b"SCHILY.xattr.user.a": b"1", b"SCHILY.xattr.trusted.overlay.opaque": b"y"}
    found.add(header(name=b"./../x//y/", mode=0o104755), stat.S_IFREG, values, 0)
    found.add(header(name=b"l", link=b"/x/../y"), 0, {b"mtime": b"1.5"}, 0)
    first, second = found.entries
    assert (first.path, first.mode, first.mtime_ns) == (b"x/y", 0o4755, 3 * 10**9)
    assert first.xattrs == ((b"user.a", b"1"),)
    assert (second.link, second.mtime_ns) == (b"y", 1_500_000_000)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"name": b"x" * 256}, stat.S_IFREG),
        ({"name": b"x/" * 3000}, stat.S_IFDIR),
        ({"uid": 1 << 32}, stat.S_IFREG),
        ({"gid": -1}, stat.S_IFREG),
        ({"major": 4096}, stat.S_IFCHR),
        ({"link": b""}, stat.S_IFLNK),
        ({"name": b"/"}, stat.S_IFREG),
    ],
)
def test_what_no_layer_may_have(values, kind):
    with pytest.raises(LayerFormatError):
        Members().add(header(**values), kind, {}, 0)


def test_limits_count_everything_kept():
    found = Members(Limits(entries=2))
    found.add(header(), stat.S_IFREG, {}, 0)
    found.add(header(), stat.S_IFREG, {}, 0)
    with pytest.raises(LayerFormatError, match="more than 2 members"):
        found.add(header(), stat.S_IFREG, {}, 0)
    with pytest.raises(LayerFormatError, match="10 bytes"):
        Members(Limits(kept=10)).add(header(name=b"x" * 11), stat.S_IFREG, {}, 0)
