import gzip
import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from clip_runc.errors import LayerFormatError
from clip_runc.index.gzip_blocks import member_header, restart_bytes

LIBRARIES = (zlib, isal_zlib)


def deflate(data: bytes, level: int = 6) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("foreign", [0x00, 0xFF, 0x5A])
def test_a_stream_can_be_entered_at_every_bit(library, bit, foreign):
    data = b"all bit offsets " * 50
    packed = deflate(data)
    shifted = int.from_bytes(packed, "little") << bit | foreign & ((1 << bit) - 1)
    stream = shifted.to_bytes(len(packed) + 1, "little")

    inflater = library.decompressobj(-15)
    assert inflater.decompress(restart_bytes(bit, stream[0]) + stream[1:]) == data
    assert inflater.eof


@given(
    extra=st.none() | st.binary(max_size=300),
    name=st.none() | st.binary(max_size=300).map(lambda name: name.replace(b"\0", b"")),
    checksum=st.booleans(),
)
def test_headers_with_all_fields(extra, name, checksum):
    flags = (4 if extra is not None else 0) | (8 | 16 if name is not None else 0) | checksum << 1
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    if extra is not None:
        header += len(extra).to_bytes(2, "little") + extra
    if name is not None:
        header += name + b"\0" + name + b"\0"
    header += b"xx" if checksum else b""

    assert member_header(b"before" + header + b"data", 6) == 6 + len(header)
    for cut in range(6, 6 + len(header)):
        with pytest.raises(LayerFormatError):
            member_header((b"before" + header)[:cut], 6)


def test_gzip_module_writes_what_we_read():
    buffer = io.BytesIO()
    with gzip.GzipFile("a name", "wb", fileobj=buffer) as file:
        file.write(b"x")
    assert member_header(buffer.getvalue()) == 10 + len("a name") + 1


@pytest.mark.parametrize("header", [b"", b"PK\x03\x04567890123", b"\x1f\x8b\x08\xe0" + bytes(20)])
def test_no_header(header):
    with pytest.raises(LayerFormatError):
        member_header(header)
