"""Files of the Go library (Beta9's ``.clip``, version 1): of which image they speak.

They are indexes of an image in a registry that lack what ours need (windows to restart gzip
from, hashes of chunks), or archives of files.  Layout: a header of 54 bytes (little endian), the
tree, and where the data are, both as gobs.  Source: github.com/beam-cloud/clip, pkg/common.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any

from clip_runc.errors import IndexFormatError
from clip_runc.images.gob import decode
from clip_runc.index.clip_format import GO_MAGIC
from clip_runc.registry.image import is_digest

# start bytes, version, index length and place, storage info length and place, storage info type
_HEADER = struct.Struct("<9sBqqqq12s")
_VERSION = 1
_STORAGE_LIMIT = 64 << 20
_HUB = ("index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class GoClip:
    """The image that a Go ``.clip`` was made from.

    ``reference`` names it by digest where the file does (``host/repository@sha256:…``), else by
    tag.  ``platform`` may be ``""``; ``layers`` are digests, bottom first.
    """

    reference: str
    platform: str
    layers: tuple[str, ...]


def read(fd: int) -> GoClip:
    """What the file open as ``fd`` says.  Raises ``IndexFormatError``."""
    head = os.pread(fd, _HEADER.size, 0)
    if head[: len(GO_MAGIC)] != GO_MAGIC:
        raise IndexFormatError("not a .clip file of the Go library")
    if len(head) < _HEADER.size:
        raise IndexFormatError("a .clip file of the Go library is cut short")
    _, version, _, _, length, place, _ = _HEADER.unpack(head)
    if version != _VERSION:
        raise IndexFormatError(f"a .clip file of the Go library, of version {version}")
    if not length:
        raise IndexFormatError(
            "an archive of files of the Go library, which names no image in a registry",
            "index the image that it was made from: clipctl index HOST/REPOSITORY:TAG",
        )
    if not 0 < length <= _STORAGE_LIMIT or not 0 <= place < 1 << 62:
        raise IndexFormatError("a .clip file of the Go library has no sensible header")
    data = os.pread(fd, length, place)
    if len(data) != length:
        raise IndexFormatError("a .clip file of the Go library is cut short")
    return _image(data)


def _image(data: bytes) -> GoClip:
    wrapper = _object(decode(data))
    kind, inner = wrapper.get("Type"), wrapper.get("Data")
    if kind != "oci" or not isinstance(inner, bytes):
        raise IndexFormatError(
            f"a .clip file of the Go library whose data are in {str(kind)[:40]!r}, "
            "which names no image in a registry",
            "index the image that it was made from: clipctl index HOST/REPOSITORY:TAG",
        )
    info = _object(decode(inner))
    about = _object(info.get("ImageMetadata", {}))
    host, repository, version = (_text(info, x) for x in ("RegistryURL", "Repository", "Reference"))
    host = host.removeprefix("https://").removeprefix("http://").rstrip("/")
    digest = _text(about, "Digest")
    if not is_digest(version) and is_digest(digest):
        version = digest  # tags move
    parts = [_text(about, name) for name in ("Os", "Architecture", "Variant")]
    layers = info.get("Layers", [])
    if not (host and repository and version and isinstance(layers, list)):
        raise IndexFormatError("a .clip file of the Go library names no image")
    return GoClip(
        f"{'docker.io' if host in _HUB else host}/{repository}"
        f"{'@' if is_digest(version) else ':'}{version}",
        "/".join(part for part in parts if part) if all(parts[:2]) else "",
        tuple(str(layer) for layer in layers),
    )


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise IndexFormatError("a .clip file of the Go library is damaged")
    return value


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name, "")
    return value if isinstance(value, str) else ""
