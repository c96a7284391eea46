import gzip

import pytest
import zstandard

from clip_runc.errors import LayerFormatError
from clip_runc.images.media_types import compression_of, expected_compression


@pytest.mark.parametrize(
    ("media_type", "compression"),
    [
        ("application/vnd.oci.image.layer.v1.tar", "none"),
        ("application/vnd.oci.image.layer.v1.tar+gzip", "gzip"),
        ("application/vnd.oci.image.layer.v1.tar+zstd", "zstd"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"),
    ],
)
def test_types_of_layers(media_type, compression):
    assert expected_compression(media_type) == compression


@pytest.mark.parametrize("media_type", ["", "application/json", "x" * 1000])
def test_unknown_types(media_type):
    with pytest.raises(LayerFormatError) as caught:
        expected_compression(media_type)
    assert len(str(caught.value)) < 300


def test_magic_numbers():
    assert compression_of(gzip.compress(b"")[:4]) == "gzip"
    assert compression_of(zstandard.compress(b"")[:4]) == "zstd"
    assert compression_of(b"\x5f\x2a\x4d\x18") == "zstd"
    assert compression_of(b"etc/") == "none"
    assert compression_of(b"") == "none"
