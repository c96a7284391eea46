"""The scanner: archives as they are found, and as they are forged."""

from __future__ import annotations

import io
import stat
import tarfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.index.members import Limits, clean_path
from clip_runc.index.model import Entry
from clip_runc.index.tar import TarScanner
from tests.integration.prerequisites import paced


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def scan(stream: bytes, step: int = 1 << 20, limits: Limits | None = None) -> list[Entry]:
    scanner = TarScanner(limits) if limits else TarScanner()
    for at in range(0, len(stream), step):
        scanner.feed(memoryview(stream)[at : at + step])
    return scanner.close()


def contents(stream: bytes, entry: Entry) -> bytes:
    out = bytearray(entry.size)
    for extent in entry.extents:
        source, at = (
            (stream, extent.stream) if extent.stream >= 0 else (entry.literal, ~extent.stream)
        )
        out[extent.logical : extent.logical + extent.length] = source[at : at + extent.length]
    return bytes(out)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_kinds(form: int) -> None:
    stream = archive(
        member("dir/", type=tarfile.DIRTYPE, mode=0o1777),
        member("dir/file", b"data", mode=0o4755, uid=1000, gid=2000, mtime=1700000000),
        member("dir/empty"),
        member("link", type=tarfile.SYMTYPE, linkname="../dir//file"),
        member("hard", type=tarfile.LNKTYPE, linkname="./dir/file"),
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("disk", type=tarfile.BLKTYPE, devmajor=259, devminor=1),
        member("pipe", type=tarfile.FIFOTYPE),
        form=form,
    )
    directory, file, empty, link, hard, null, disk, pipe = scan(stream)
    assert (directory.path, directory.kind, directory.mode) == (b"dir", stat.S_IFDIR, 0o1777)
    assert (file.kind, file.mode, file.uid, file.gid) == (stat.S_IFREG, 0o4755, 1000, 2000)
    assert file.mtime_ns == 1700000000 * 10**9
    assert contents(stream, file) == b"data"
    assert (empty.size, empty.extents) == (0, ())
    assert (link.kind, link.link) == (stat.S_IFLNK, b"../dir//file")
    assert (hard.kind, hard.link) == (0, b"dir/file")
    assert (null.kind, null.rdev) == (stat.S_IFCHR, (1, 3))
    assert (disk.kind, disk.rdev) == (stat.S_IFBLK, (259, 1))
    assert pipe.kind == stat.S_IFIFO


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_large_numbers_and_old_times(form: int) -> None:
    name = "/".join("d" * 200 for _ in range(10))
    stream = archive(
        member(name, b"x", uid=4_000_000_000, gid=3_000_000_000, mtime=-3),
        member("l", type=tarfile.SYMTYPE, linkname="t" * 300),
        form=form,
    )
    file, link = scan(stream)
    assert file.path == name.encode()
    assert (file.uid, file.gid, file.mtime_ns) == (4_000_000_000, 3_000_000_000, -3_000_000_000)
    assert link.link == b"t" * 300


def test_pax_time_and_xattrs() -> None:
    headers = {"mtime": "1.000000001", "SCHILY.xattr.user.a": "b"}
    (entry,) = scan(archive(member("f", pax_headers=headers)))
    assert (entry.mtime_ns, entry.xattrs) == (1_000_000_001, ((b"user.a", b"b"),))


def test_names_that_are_not_utf8() -> None:
    stream = archive(member("\udcff\udcfe", b"1"), form=tarfile.GNU_FORMAT)
    assert scan(stream)[0].path == b"\xff\xfe"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"./a", b"a"),
        (b"/etc//passwd", b"etc/passwd"),
        (b"../../etc/passwd", b"etc/passwd"),
        (b"a/../../b", b"b"),
        (b"a/./b/", b"a/b"),
        (b".", b""),
        (b"/..", b""),
        (b"...", b"..."),
        (b"a\\..\\b", b"a\\..\\b"),
    ],
)
def test_names_are_cleaned(name: bytes, path: bytes) -> None:
    assert clean_path(name) == path


@given(st.binary(max_size=80))
def test_no_name_climbs(name: bytes) -> None:
    path = clean_path(name)
    assert not {b"", b".", b".."} & set(path.split(b"/")) or path == b""
    assert clean_path(path) == path


def test_global_headers_are_read_and_change_nothing() -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer,
        mode="w",
        format=tarfile.PAX_FORMAT,
        pax_headers={"path": "evil", "uid": "7"},
    ) as tar:
        tar.addfile(tarfile.TarInfo("good"))
    (entry,) = scan(buffer.getvalue())
    assert (entry.path, entry.uid) == (b"good", 0)


def test_duplicates_stay_in_order() -> None:
    entries = scan(archive(member("a", b"1"), member("b"), member("a", b"22")))
    assert [(entry.path, entry.size) for entry in entries] == [(b"a", 1), (b"b", 0), (b"a", 2)]


def test_the_ends_of_an_archive() -> None:
    stream = archive(member("a", b"1"))
    assert len(scan(stream[:1024])) == 1  # no zero records
    assert len(scan(stream[:513])) == 1  # nor padding
    assert len(scan(stream[:1536])) == 1  # one zero record
    assert len(scan(stream + b"garbage")) == 1
    assert scan(b"") == scan(bytes(1024)) == []


def test_cut_off_streams_are_refused() -> None:
    stream = archive(member("n/" * 150, b"x" * 2000, pax_headers={"comment": "c"}))
    end = next(n for n in range(len(stream), 0, -1) if stream[n - 1 : n] == b"x")
    for cut in range(1, end, 97):
        with pytest.raises(LayerFormatError, match="middle of a member"):
            scan(stream[:cut])
    with pytest.raises(LayerFormatError, match="lone zero"):
        scan(bytes(512) + stream)


def test_a_scanner_that_failed_stays_so() -> None:
    scanner = TarScanner()
    with pytest.raises(LayerFormatError):
        scanner.feed(b"x" * 512)
    with pytest.raises(LayerFormatError):
        scanner.feed(bytes(1024))
    with pytest.raises(LayerFormatError):
        scanner.close()


def test_an_exbibyte_is_truncated_not_allocated() -> None:
    info = tarfile.TarInfo("bomb")
    info.size = 1 << 62
    with pytest.raises(LayerFormatError, match="middle of a member"):
        scan(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize(
    ("limits", "members"),
    [
        (Limits(entries=1), [member("a"), member("b")]),
        (Limits(kept=10), [member("a" * 11)]),
        (Limits(header=100), [member("a" * 200)]),
        (Limits(path=50), [member("a/" * 30)]),
        (Limits(stream=4096), [member("a", bytes(8192))]),
        (Limits(), [member("a" * 256)]),
        (Limits(), [member("h", type=tarfile.LNKTYPE, linkname="a" * 256)]),
        (Limits(), [member("c", type=tarfile.CHRTYPE, devmajor=4096)]),
        (Limits(), [member("u", uid=0xFFFFFFFF)]),
        (Limits(), [member("u", gid=-2)]),
        (Limits(), [member("s", type=tarfile.SYMTYPE)]),
        (Limits(), [member("./")]),
        (Limits(), [member("V", type=b"V")]),
    ],
)
def test_limits(limits: Limits, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(LayerFormatError):
        scan(archive(*members, form=tarfile.GNU_FORMAT), limits=limits)


def sparse_archive(pairs: list[tuple[int, bytes]], size: int, form: str) -> bytes:
    """Forge a sparse member in one of the formats of GNU tar."""
    data = b"".join(text for _, text in pairs)
    flat = [number for at, text in pairs for number in (at, len(text))]
    headers: list[tuple[str, str]] = []
    if form == "gnu":
        info = tarfile.TarInfo("sparse")
        info.type, info.size = b"S", len(data)
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        words = [b"%011o\0" % number for number in flat]
        block[386 : 386 + 12 * len(words[:8])] = b"".join(words[:8])
        block[482] = len(words) > 8
        block[483:495] = b"%011o\0" % size
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        out = bytes(block)
        words = words[8:]
        while words:
            out += b"".join(words[:42]).ljust(504, b"\0") + bytes([len(words) > 42]) + bytes(7)
            words = words[42:]
        return out + data + bytes(-len(data) % 512) + bytes(1024)
    if form == "1.0":
        text = "".join(f"{number}\n" for number in [len(pairs), *flat]).encode()
        data = text + bytes(-len(text) % 512) + data
        headers = [
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "sparse"),
            ("GNU.sparse.realsize", str(size)),
        ]
    elif form == "0.1":
        headers = [
            ("GNU.sparse.size", str(size)),
            ("GNU.sparse.numblocks", str(len(pairs))),
            ("GNU.sparse.name", "sparse"),
            ("GNU.sparse.map", ",".join(map(str, flat))),
        ]
    else:
        headers = [("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(pairs)))]
        for at, part in pairs:
            headers += [("GNU.sparse.offset", str(at)), ("GNU.sparse.numbytes", str(len(part)))]
    body = b""
    for key, value in headers:
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 2 if len(rest) < 97 else len(rest) + 3
        body += str(length).encode() + rest
    extended = tarfile.TarInfo("PaxHeader")
    extended.type, extended.size = b"x", len(body)
    info = tarfile.TarInfo("GNUSparseFile.0/sparse" if form != "0.0" else "sparse")
    info.size = len(data)
    return (
        extended.tobuf(tarfile.USTAR_FORMAT)
        + body
        + bytes(-len(body) % 512)
        + info.tobuf(tarfile.USTAR_FORMAT)
        + data
        + bytes(-len(data) % 512)
        + bytes(1024)
    )


SPARSE_FORMS = ["gnu", "0.0", "0.1", "1.0"]


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_sparse_files(form: str) -> None:
    pairs = [(4096 * n, bytes([n + 1]) * 512) for n in range(60)]
    stream = sparse_archive(pairs, 4096 * 70, form)
    (entry,) = scan(stream)
    assert (entry.path, entry.size, entry.literal) == (b"sparse", 4096 * 70, b"")
    assert len(entry.extents) == 60
    expected = bytearray(entry.size)
    for at, data in pairs:
        expected[at : at + len(data)] = data
    assert contents(stream, entry) == expected


@pytest.mark.parametrize("form", SPARSE_FORMS)
@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.tuples(st.integers(0, 1500), st.integers(1, 1500)), max_size=12),
    tail=st.integers(0, 1000),
    step=st.integers(1, 5000),
)
def test_sparse_files_off_blocks(
    form: str, gaps: list[tuple[int, int]], tail: int, step: int
) -> None:
    at, pairs = 0, []
    expected = b""
    for number, (gap, length) in enumerate(gaps):
        data = bytes([number + 1]) * length
        pairs.append((at + gap, data))
        expected += bytes(gap) + data
        at += gap + length
    expected += bytes(tail)
    stream = sparse_archive(pairs, len(expected), form)
    (entry,) = scan(stream, step)
    assert contents(stream, entry) == expected
    assert all(
        extent.logical % 512 == 0 and max(extent.stream, ~extent.stream) % 512 == 0
        for extent in entry.extents
    )


@pytest.mark.parametrize("form", SPARSE_FORMS)
@pytest.mark.parametrize(
    ("pairs", "size"),
    [
        ([(1024, b"x" * 512), (0, b"y" * 512)], 4096),
        ([(0, b"x" * 512), (100, b"y")], 4096),
        ([(4000, b"x" * 512)], 4096),
    ],
)
def test_forged_sparse_maps_are_refused(
    form: str, pairs: list[tuple[int, bytes]], size: int
) -> None:
    with pytest.raises(LayerFormatError, match="sparse"):
        scan(sparse_archive(pairs, size, form))


def test_too_much_literal_data_is_refused() -> None:
    stream = sparse_archive([(1, b"x" * 5000)], 6000, "1.0")
    assert len(scan(stream)) == 1
    with pytest.raises(LayerFormatError, match="does not lie on blocks"):
        scan(stream, limits=Limits(literal=4096))


def test_sparse_maps_are_bounded() -> None:
    stream = sparse_archive([(n * 512, b"x") for n in range(500)], 512 * 500, "1.0")
    with pytest.raises(LayerFormatError, match="sparse map over"):
        scan(stream, limits=Limits(header=1024))
    stream = sparse_archive([(n * 512, b"x") for n in range(500)], 512 * 500, "gnu")
    with pytest.raises(LayerFormatError, match="too long"):
        scan(stream, limits=Limits(header=1024))


@settings(max_examples=60, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=6),
    step=st.integers(1, 3000),
)
def test_damaged_archives_raise_nothing_else(flips: list[tuple[int, int]], step: int) -> None:
    stream = bytearray(
        archive(
            member("n/" * 150, b"x" * 900, mtime=1.5), member("l", type=b"2", linkname="t" * 200)
        )
    )
    for at, bits in flips:
        stream[at % len(stream)] ^= bits
    try:
        entries = scan(bytes(stream), step)
    except LayerFormatError:
        return
    assert len(entries) <= 2


def test_members_cost_microseconds() -> None:
    stream = archive(
        *(member(f"usr/lib/d/f{n}", b"x") for n in range(5000)), form=tarfile.GNU_FORMAT
    )
    start = time.process_time()
    assert len(scan(stream)) == 5000
    assert time.process_time() - start < paced(1)  # 0.07 s on the machine this was written on
