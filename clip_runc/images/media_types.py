"""Layers by what they are called and by what they are."""

from __future__ import annotations

from clip_runc.errors import LayerFormatError
from clip_runc.index.zstd_frames import is_frame

_OCI = "application/vnd.oci.image.layer.v1.tar"
_DOCKER = "application/vnd.docker.image.rootfs.diff.tar"

_COMPRESSIONS = {
    _OCI: "none",
    f"{_OCI}+gzip": "gzip",
    f"{_OCI}+zstd": "zstd",
    _DOCKER: "none",
    f"{_DOCKER}.gzip": "gzip",
    f"{_DOCKER}.zstd": "zstd",
}


def expected_compression(media_type: str) -> str:
    """``"gzip"``, ``"zstd"`` or ``"none"``, by the media type alone.

    Raises ``LayerFormatError`` for layers that are not in a registry or that we cannot read.
    """
    if "nondistributable" in media_type or "foreign" in media_type:
        raise LayerFormatError(
            f"a layer of type {media_type} is not distributed by registries",
            "such images (Windows base images) cannot be used here",
        )
    if "+encrypted" in media_type:
        raise LayerFormatError(
            f"a layer of type {media_type} is encrypted", "decrypt the image and push it again"
        )
    if media_type not in _COMPRESSIONS:
        raise LayerFormatError(
            f"a layer of the unknown type {media_type[:100]!r}",
            "is the reference that of a container image?",
        )
    return _COMPRESSIONS[media_type]


def compression_of(head: bytes) -> str:
    """What a blob that begins with these four bytes is; ``"none"`` where we see no magic."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if len(head) >= 4 and is_frame(head[:4]):
        return "zstd"
    return "none"
