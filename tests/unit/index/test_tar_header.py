"""Headers: numbers, checksums, prefixes."""

from __future__ import annotations

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.index import tar_header
from clip_runc.index.tar_header import decode, number


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b" 644 \0\0\0", 0o644),
        (b"644\0junk", 0o644),
        (b"\0\0\0\0\0\0\0\0", 0),
        (b"\x80\0\0\0\0\0\0\x05", 5),
        (b"\x80\0\0\x01\0\0\0\0", 1 << 32),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
        (b"\xff\xff\xff\xff\xff\xff\xff\x00", -256),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    assert number(field, "size", 0) == value


@pytest.mark.parametrize(
    "field", [b"0000648\0", b"-0000644", b"0o644\0\0\0", b"1_0\0\0\0\0\0", b"x"]
)
def test_what_is_no_number_is_refused(field: bytes) -> None:
    with pytest.raises(LayerFormatError, match="size"):
        number(field, "size", 0)


@given(st.integers(-(1 << 62), 1 << 62))
def test_base_256_is_what_tarfile_writes(value: int) -> None:
    field = tarfile.itn(value, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    assert number(field, "size", 0) == value


def test_ustar_prefix_is_put_before_the_name() -> None:
    info = tarfile.TarInfo("d" * 90 + "/" + "n" * 90)
    header = decode(info.tobuf(tarfile.USTAR_FORMAT), 0)
    assert header.name == info.name.encode()


def test_gnu_prefix_holds_other_things() -> None:
    block = bytearray(tarfile.TarInfo("name").tobuf(tarfile.GNU_FORMAT))
    block[345:357] = b"14000000000\0"  # atime
    assert decode(_summed(block), 0).name == b"name"


def test_star_prefix_ends_at_131() -> None:
    block = bytearray(tarfile.TarInfo("name").tobuf(tarfile.USTAR_FORMAT))
    block[345:476] = b"p" * 131
    block[476:488] = b"14000000000\0"
    block[508:512] = b"tar\0"
    assert decode(_summed(block), 0).name == b"p" * 131 + b"/name"


def test_signed_checksums_of_old_archivers() -> None:
    block = bytearray(tarfile.TarInfo("n").tobuf(tarfile.USTAR_FORMAT))
    block[0:2] = b"\xe4\xe4"
    total = sum(block[:148]) + sum(block[156:]) + 256 - 512
    block[148:156] = b"%06o\0 " % total
    assert decode(bytes(block), 0).name == b"\xe4\xe4"


def test_damage_is_seen() -> None:
    block = bytearray(tarfile.TarInfo("name").tobuf(tarfile.USTAR_FORMAT))
    block[3] ^= 1
    with pytest.raises(LayerFormatError, match="no tar header at offset 4096"):
        decode(bytes(block), 4096)


@pytest.mark.parametrize("size", [-1, 1 << 63])
def test_impossible_sizes_are_refused(size: int) -> None:
    info = tarfile.TarInfo("bomb")
    info.size = size
    with pytest.raises(LayerFormatError, match="size"):
        decode(info.tobuf(tarfile.GNU_FORMAT), 0)


@given(st.binary(min_size=512, max_size=512))
def test_garbage_raises_nothing_else(block: bytes) -> None:
    with pytest.raises(LayerFormatError):
        decode(block, 0)


def _summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_a_record_is_512_bytes() -> None:
    assert tar_header._FIELDS.size == tar_header.RECORD == len(tar_header.ZERO_RECORD)
