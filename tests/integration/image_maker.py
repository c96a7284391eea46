"""Makes OCI images out of tar streams and keeps them as an OCI image layout on disk.

Used by the integration tests, by ``scripts/quickstart`` and by ``bench/``: whoever needs a
real image makes it on the spot, so that nothing is fetched from a public registry and no
image lies in the repository.  What goes into the layers is decided elsewhere
(``debian_images``, ``busybox_images``).
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
MEDIA_TYPES = {"gzip": f"{LAYER}+gzip", "zstd": f"{LAYER}+zstd", "none": LAYER}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PIECE = 1 << 20


@dataclass(frozen=True)
class Blob:
    """Bytes in a file, and what a descriptor says of them; ``diff_id`` is empty but for layers."""

    path: Path
    digest: str
    size: int
    media_type: str
    diff_id: str = ""

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Image:
    """An image in a layout on disk: ``blobs`` are its config and layers, in push order."""

    layout: Path
    manifest: bytes
    blobs: tuple[Blob, ...]

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return sha256(self.manifest)

    @property
    def layers(self) -> tuple[Blob, ...]:
        return tuple(blob for blob in self.blobs if blob.media_type != CONFIG)

    @property
    def compressed_size(self) -> int:
        """Bytes that a pull of the image moves."""
        return sum(blob.size for blob in self.blobs)


def sha256(data: bytes) -> str:
    """The digest of ``data`` as OCI writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def architecture() -> str:
    """This machine's architecture in OCI's (Go's) words."""
    return ARCHITECTURES[platform.machine()]


def compressor(compression: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    """``(feed, finish)`` of a compressor with the usual level of image builders."""
    if compression == "gzip":
        deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
        return deflate.compress, deflate.flush
    if compression == "zstd":
        frame = zstandard.ZstdCompressor(level=3).compressobj()
        return frame.compress, frame.flush
    return bytes, bytes


def write_layer(layout: Path, stream: Iterable[bytes], compression: str = "gzip") -> Blob:
    """Compress the tar ``stream`` into a blob of the layout; one pass, two digests."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    feed, finish = compressor(compression)
    raw, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    part = blobs / "layer.part"

    def put(file: BinaryIO, data: bytes) -> int:
        packed.update(data)
        return file.write(data)

    with part.open("wb") as file:
        for piece in stream:
            raw.update(piece)
            size += put(file, feed(piece))
        size += put(file, finish())
    path = part.rename(blobs / packed.hexdigest())
    return Blob(
        path=path,
        digest=f"sha256:{packed.hexdigest()}",
        size=size,
        media_type=MEDIA_TYPES[compression],
        diff_id=f"sha256:{raw.hexdigest()}",
    )


def write_blob(layout: Path, data: bytes, media_type: str) -> Blob:
    """Put ``data`` into the layout under its digest."""
    digest = sha256(data)
    path = layout / "blobs/sha256" / digest.removeprefix("sha256:")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Blob(path, digest, len(data), media_type)


def write_image(
    layout: Path, layers: Sequence[Blob], settings: dict[str, Any], machine: str = ""
) -> Image:
    """Finish the layout: config (``settings`` is its ``config`` object), manifest, index.

    Nothing in it depends on the time or the machine but the architecture, unless that is given.
    """
    document = {
        "architecture": machine or architecture(),
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    config = write_blob(layout, json.dumps(document).encode(), CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
    }
    root = write_blob(layout, json.dumps(manifest).encode(), MANIFEST)
    annotations = {"org.opencontainers.image.ref.name": "latest"}
    index = {"schemaVersion": 2, "manifests": [root.descriptor() | {"annotations": annotations}]}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps(index))
    return read_image(layout)


def read_image(layout: Path) -> Image:
    """The one image of a layout; ``FileNotFoundError`` where none was finished."""
    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs/sha256"

    def path(digest: str) -> Path:
        return blobs / digest.removeprefix("sha256:")

    manifest = path(index["manifests"][0]["digest"]).read_bytes()
    document = json.loads(manifest)
    config = document["config"]
    diff_ids = json.loads(path(config["digest"]).read_bytes())["rootfs"]["diff_ids"]
    found = [(config, ""), *zip(document["layers"], diff_ids, strict=True)]
    return Image(
        layout,
        manifest,
        tuple(
            Blob(path(one["digest"]), one["digest"], one["size"], one["mediaType"], diff_id)
            for one, diff_id in found
        ),
    )


def recompress(image: Image, layout: Path, compressions: Sequence[str]) -> Image:
    """The same image in another layout with its layers compressed otherwise."""
    layers = [
        write_layer(layout, unpacked(layer), compression)
        for layer, compression in zip(image.layers, compressions, strict=True)
    ]
    settings = json.loads(image.blobs[0].path.read_bytes())["config"]
    return write_image(layout, layers, settings)


def unpacked(layer: Blob) -> Iterator[bytes]:
    """The tar stream of a gzip layer."""
    inflate = zlib.decompressobj(31)
    with layer.path.open("rb") as file:
        while piece := file.read(PIECE):
            yield inflate.decompress(piece)
    yield inflate.flush()


def tar_stream(tree: Path, paths: Iterable[bytes]) -> Iterator[bytes]:
    """GNU tar's stream of ``paths`` (relative to ``tree``, not recursive), xattrs included.

    Times in whole seconds as image builders write them: a PAX record of nanoseconds would
    double the headers.
    """
    command = [
        "tar", "--create", "--file=-", "--format=posix", "--numeric-owner", "--xattrs",
        "--xattrs-include=*", "--pax-option=delete=atime,delete=ctime,delete=mtime",
        f"--directory={tree}", "--no-recursion",
        "--null", "--verbatim-files-from", "--files-from=-",
    ]  # fmt: skip
    names = b"".join(path + b"\0" for path in sorted(paths))
    listing = tree.parent / f"{tree.name}.names"
    listing.write_bytes(names)
    with listing.open("rb") as stdin:
        process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as out:
        while piece := out.read(PIECE):
            yield piece
    listing.unlink()
    if process.wait():
        raise RuntimeError(f"tar of {tree} failed with status {process.returncode}")


def cached(layout: Path, make: Callable[[Path], Image]) -> Image:
    """The image of ``layout``, made when it is not there; half-made ones are swept."""
    try:
        return read_image(layout)
    except FileNotFoundError:
        part = layout.with_name(layout.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(layout, ignore_errors=True)
        part.mkdir(parents=True)
        make(part)
        part.rename(layout)
        return read_image(layout)
