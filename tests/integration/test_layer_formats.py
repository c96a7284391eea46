"""One content in every wrapping that registries have: always the same tree, the same bytes."""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from clip_runc import OverlayMounter, create_from_oci_image
from clip_runc.registry.client import Registry
from clip_runc.registry.reference import Reference
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import Image, sha256, write_blob, write_image
from tests.integration.prerequisites import need
from tests.integration.pushing import push
from tests.integration.torture_image import formats_layers
from tests.integration.trees import unpack
from tests.integration.whole_tree import Tree, differences, walk

Wrap = Callable[[bytes], bytes]


def gzip(data: bytes, level: int = 6) -> bytes:
    deflate = zlib.compressobj(level, zlib.DEFLATED, 31)
    return deflate.compress(data) + deflate.flush()


def pgzip(data: bytes) -> bytes:
    """As Go's pgzip: one member, its blocks ended by a sync flush."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    blocks = [
        deflate.compress(one) + deflate.flush(zlib.Z_SYNC_FLUSH) for one in cut(data, 1 << 18)
    ]
    return b"".join(blocks) + deflate.flush()


def zstd(data: bytes, *, sized: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=sized).compress(data)


def cut(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def joined(wrap: Wrap, size: int) -> Wrap:
    """Many of them, one after the other."""
    return lambda data: b"".join(map(wrap, cut(data, size)))


def program(*command: str) -> Wrap:
    return lambda data: subprocess.run(command, input=data, capture_output=True, check=True).stdout


def chunked(data: bytes) -> bytes:
    """As zstd:chunked: frames, and at the end a skippable one with a table."""
    skippable = (0x184D2A50).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(64)
    return joined(zstd, 100_000)(data) + skippable


def estargz(data: bytes) -> bytes:
    """As eStargz: a member for each piece, and at the end an empty one with a field of its own."""
    field = b"SG\x16\0%016xSTARGZ" % 0
    head = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + len(field).to_bytes(2, "little")
    return joined(gzip, 70_007)(data) + head + field + b"\1\0\0\xff\xff" + bytes(8)


OCI = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
FORMATS: dict[str, tuple[Wrap, str]] = {
    "gzip": (gzip, f"{OCI}+gzip"),
    "gzip members": (joined(gzip, 300_000), f"{OCI}+gzip"),
    "gzip stored": (lambda data: gzip(data, 0), f"{OCI}+gzip"),
    "pigz": (program("pigz", "-c", "-p4", "-b128"), f"{OCI}+gzip"),
    "pigz independent": (program("pigz", "-c", "-i", "-p4"), f"{OCI}+gzip"),
    "pgzip": (pgzip, f"{OCI}+gzip"),
    "eStargz": (estargz, f"{OCI}+gzip"),
    "zstd": (zstd, f"{OCI}+zstd"),
    "zstd without sizes": (lambda data: zstd(data, sized=False), f"{OCI}+zstd"),
    "zstd frames": (joined(zstd, 300_000), f"{OCI}+zstd"),
    "zstd:chunked": (chunked, f"{OCI}+zstd"),
    "uncompressed": (bytes, OCI),
    "gzip that is called tar": (gzip, OCI),
    "tar that is called gzip": (bytes, f"{OCI}+gzip"),
    "zstd that is called gzip": (zstd, f"{OCI}+gzip"),
    "gzip that is called zstd": (gzip, f"{OCI}+zstd"),
    "Docker gzip": (gzip, f"{DOCKER}.gzip"),
    "Docker tar": (bytes, DOCKER),
}


def wrapped(layout: Path, name: str) -> Image:
    """The image with its layers in one format."""
    wrap, media_type = FORMATS[name]
    streams = formats_layers(name.encode())
    blobs = [write_blob(layout, wrap(stream), media_type) for stream in streams]
    known = zip(blobs, streams, strict=True)
    return write_image(layout, [replace(blob, diff_id=sha256(raw)) for blob, raw in known], {})


def push_oci(image: Image, host: str, repository: str) -> str:
    """Push the image as it is."""
    return push(image, host, repository, "latest")


def push_docker(image: Image, host: str, repository: str) -> str:
    """Push the image with a manifest of Docker's schema 2."""
    document = json.loads(image.manifest) | {"mediaType": DOCKER_MANIFEST}
    document["config"]["mediaType"] = DOCKER_CONFIG
    reference = f"{host}/{repository}:latest"
    with Registry(Reference.parse(reference)) as registry:
        for blob in image.blobs:
            registry.push_blob(str(blob.path), digest=blob.digest)
        registry.push_manifest(json.dumps(document).encode(), DOCKER_MANIFEST)
    return reference


@pytest.fixture(scope="module")
def machine(scratch: Path, index_cache: Path) -> Iterator[ClipMachine]:
    """One for all formats, whose layers have nothing in common."""
    need("root", "fuse", "overlay")
    machine = ClipMachine(scratch, index_cache)
    yield machine
    assert not machine.sweep()


@pytest.fixture(scope="module")
def expected(scratch: Path) -> Tree:
    """What umoci unpacks of the gzip image."""
    place = scratch / "formats"
    return walk(unpack(wrapped(place / "umoci", "gzip"), place))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_same_tree(
    machine: ClipMachine, registry: DockerRegistry, scratch: Path, expected: Tree, name: str
) -> None:
    repository = "formats/" + "".join(filter(str.isalnum, name.lower()))
    image = wrapped(scratch / repository, name)
    send = push_docker if name.startswith("Docker") else push_oci
    index = scratch / repository / "index.clip"
    create_from_oci_image(send(image, registry.host, repository), index, settings=machine.settings)
    with OverlayMounter(settings=machine.settings).mount(index) as mount:
        seen = walk(mount.rootfs_path)
    mark = seen.pop(b"d/mark")
    assert mark.content == sha256(name.encode()).removeprefix("sha256:")
    wanted = {path: status for path, status in expected.items() if path != b"d/mark"}
    assert not list(differences(seen, wanted))
