"""PAX records, times, xattrs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.index import pax


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    size = len(body) + 1
    while len(b"%d" % size) + len(body) != size:
        size += 1
    return b"%d" % size + body


def test_records() -> None:
    data = record(b"path", b"a/b=c\nd") + record(b"mtime", b"1.5") + record(b"path", b"last")
    assert pax.parse(data, 0).values == {b"path": b"last", b"mtime": b"1.5"}


def test_an_xattr_may_hold_anything() -> None:
    value = bytes(range(256)) * 3
    data = record(b"SCHILY.xattr.security.capability", value)
    assert pax.xattrs(pax.parse(data, 0).values, 0) == ((b"security.capability", value),)


@pytest.mark.parametrize(
    "data",
    [
        b"path=x\n",
        b"9 path=x\n9",
        b"99 path=x\n",
        b"10 path=xx",
        b"0 path=x\n",
        b"6 path\n",
        b"-9 path=x\n",
        record(b"path", b"a\0b"),
        record(b"", b"x"),
    ],
)
def test_damaged_records_are_refused(data: bytes) -> None:
    with pytest.raises(LayerFormatError):
        pax.parse(data, 0)


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_else(data: bytes) -> None:
    try:
        pax.parse(data, 0)
    except LayerFormatError:
        return
    assert pax.parse(data, 0).values or not data.strip(b"\0")


@given(
    st.dictionaries(st.binary(min_size=1).filter(lambda k: not set(k) & set(b"=\0")), st.binary())
)
def test_what_is_written_is_read(values: dict[bytes, bytes]) -> None:
    names = (b"path", b"linkpath")  # no NUL in those
    values = {k: v for k, v in values.items() if not k.startswith(b"GNU.sparse") and k not in names}
    assert pax.parse(b"".join(record(k, v) for k, v in values.items()), 0).values == values


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"0", 0),
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"1.0000000019", 1_000_000_001),
        (b"-1.0000000001", -1_000_000_001),
        (b"99999999999999999999", (1 << 63) - 1),
        (b"-99999999999999999999", -(1 << 63)),
    ],
)
def test_times(text: bytes, ns: int) -> None:
    assert pax.time_ns(text, 0) == ns


@pytest.mark.parametrize("text", [b"", b"1e9", b"nan", b"1.5.5", b".5", b"9" * 21, b"1_0"])
def test_what_is_no_time_is_refused(text: bytes) -> None:
    with pytest.raises(LayerFormatError):
        pax.time_ns(text, 0)


def test_libarchive_names_are_quoted_and_values_base64() -> None:
    values = {b"LIBARCHIVE.xattr.user.a%3db%0A": b"aGVsbG8"}
    assert pax.xattrs(values, 0) == ((b"user.a=b\n", b"hello"),)


def test_schily_wins_over_libarchive() -> None:
    values = {b"LIBARCHIVE.xattr.user.a": b"eA", b"SCHILY.xattr.user.a": b"schily"}
    assert pax.xattrs(values, 0) == ((b"user.a", b"schily"),)


@pytest.mark.parametrize(
    "name",
    [
        b"trusted.overlay.opaque",
        b"trusted.overlay.redirect",
        b"user.overlay.whiteout",
        b"system.nfs4_acl",
        b"com.apple.quarantine",
        b"user.",
        b"system.posix_acl_access.x",
    ],
)
def test_dropped_xattrs(name: bytes) -> None:
    assert pax.xattrs({b"SCHILY.xattr." + name: b"y"}, 0) == ()
    assert pax.xattrs({b"LIBARCHIVE.xattr." + name: b"eQ"}, 0) == ()


def test_an_empty_value_takes_an_xattr_away() -> None:
    text = b"27 SCHILY.xattr.user.a=one\n24 SCHILY.xattr.user.a=\n"
    assert pax.xattrs(pax.parse(text, 0).values, 0) == ()
    assert pax.xattrs({b"LIBARCHIVE.xattr.user.a": b""}, 0) == ()


def test_large_xattrs_are_refused_with_the_reason() -> None:
    largest = {b"SCHILY.xattr.user.a": bytes(65535)}
    assert len(pax.xattrs(largest, 0)[0][1]) == 65535
    with pytest.raises(LayerFormatError, match="65536"):
        pax.xattrs({b"SCHILY.xattr.user.a": bytes(65536)}, 0)
    with pytest.raises(LayerFormatError, match="256"):
        pax.xattrs({b"SCHILY.xattr.user." + b"n" * 251: b"y"}, 0)
    with pytest.raises(LayerFormatError, match="too many"):
        pax.xattrs({b"SCHILY.xattr.user.%d" % n: bytes(65000) for n in range(5)}, 0)


def test_bad_base64_is_refused() -> None:
    with pytest.raises(LayerFormatError, match="base64"):
        pax.xattrs({b"LIBARCHIVE.xattr.user.a": b"abcde"}, 0)


def test_sparse_pairs_keep_their_order() -> None:
    data = b"".join(
        record(b"GNU.sparse." + key, b"%d" % value)
        for key, value in [
            (b"offset", 0),
            (b"numbytes", 512),
            (b"offset", 4096),
            (b"numbytes", 100),
        ]
    )
    assert pax.parse(data, 0).segments == ((0, 512), (4096, 100))
    with pytest.raises(LayerFormatError, match="pair"):
        pax.parse(data + record(b"GNU.sparse.offset", b"1"), 0)
