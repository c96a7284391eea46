"""A real index of a small image, made without a network."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from clip_runc.images.build import build_index
from clip_runc.images.local import host_platform
from clip_runc.registry.image import Descriptor

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def tar_of(files: dict[str, bytes | str | None]) -> bytes:
    """A tar stream: bytes make a file, None a directory, a string a symlink."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if content is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Name:
    name = "registry.example/team/app"


class SmallImage:
    """An image of gzip layers, as ``build_index`` wants one; its own registry."""

    reference = _Name()

    def __init__(self, *layers: dict[str, bytes | str | None], platform: str = "") -> None:
        self.tars = [tar_of(files) for files in layers]
        blobs = [gzip.compress(data, mtime=0) for data in self.tars]
        self.blobs = {sha256(blob): blob for blob in blobs}
        self.diff_ids = tuple(sha256(data) for data in self.tars)
        self.platform = platform or host_platform()
        system, architecture = self.platform.split("/")[:2]
        self.config = json.dumps(
            {
                "os": system,
                "architecture": architecture,
                "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            }
        ).encode()
        self.layers = tuple(Descriptor(sha256(b), len(b), GZIP_LAYER) for b in blobs)
        config = {"mediaType": "application/vnd.oci.image.config.v1+json"}
        config |= {"digest": sha256(self.config), "size": len(self.config)}  # type: ignore[dict-item]
        rows = [{"mediaType": GZIP_LAYER, "digest": x.digest, "size": x.size} for x in self.layers]
        self.manifest = json.dumps({"schemaVersion": 2, "config": config, "layers": rows}).encode()
        self.manifest_digest = sha256(self.manifest)

    @property
    def registry(self) -> SmallImage:
        return self

    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        yield self.blobs[digest][start:size]

    @property
    def manifest_hex(self) -> str:
        return self.manifest_digest[7:]

    def write(self, path: Path, checkpoint_mib: int = 2) -> Path:
        """Write the index to ``path``."""
        with path.open("wb") as out:
            build_index(self, out, checkpoint_mib=checkpoint_mib)
        return path


FILES: dict[str, bytes | str | None] = {
    "usr": None,
    "usr/bin": None,
    "bin": "usr/bin",
    "proc": None,
    "hello": b"hello world\n" * 1000,
}
