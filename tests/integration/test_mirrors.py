"""Mirrors: docker-registry as a pull-through cache behind a dead mirror, found by hosts.toml."""

from __future__ import annotations

import hashlib
from pathlib import Path

from clip_runc.registry.client import Registry
from clip_runc.registry.reference import Reference
from tests.integration.daemons import Daemon, DockerRegistry, free_port, listens, wait_for
from tests.integration.image_maker import Image
from tests.integration.pushing import push

CACHE = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}/storage}}}}
http: {{addr: "127.0.0.1:{port}", secret: none}}
proxy: {{remoteurl: "http://{upstream}"}}
"""


def test_a_pull_through_cache_serves_when_its_registry_is_gone(
    registry: DockerRegistry,
    busybox_image: Image,
    scratch: Path,
    tmp_path: Path,
) -> None:
    origin = DockerRegistry(scratch / "cached-origin")
    reference = Reference.parse(push(busybox_image, origin.host, "small/cached", "1"))
    directory, port = scratch / "cache", free_port()
    directory.mkdir()
    config = directory / "config.yml"
    config.write_text(CACHE.format(directory=directory, port=port, upstream=origin.host))
    cache = Daemon(["docker-registry", "serve", str(config)], directory / "log")
    wait_for(lambda: listens(port), "the cache")
    (tmp_path / origin.host).mkdir()
    (tmp_path / origin.host / "hosts.toml").write_text(
        f'[host."http://127.0.0.1:{free_port()}"]\n[host."http://127.0.0.1:{port}"]\n'
    )
    try:
        first = read_all(reference, tmp_path)
        wait_for(lambda: kept(directory, busybox_image), "the cache's copy")
        origin.stop()
        pinned = reference.with_digest(busybox_image.digest)
        assert (
            read_all(pinned, tmp_path) == first == [layer.digest for layer in busybox_image.layers]
        )
    finally:
        cache.stop()
        origin.stop()


def kept(directory: Path, image: Image) -> bool:
    """Whether the cache has every blob; it writes them while and after it serves them."""
    blobs = directory / "storage/docker/registry/v2/blobs/sha256"
    names = [blob.digest.removeprefix("sha256:") for blob in image.blobs]
    return all((blobs / name[:2] / name / "data").exists() for name in names)


def read_all(reference: Reference, hosts: Path) -> list[str]:
    """The digests of the layers as they were read, whole."""
    with Registry(reference, attempts=2, hosts_dirs=(str(hosts),)) as registry:
        found = registry.resolve()
        return [
            "sha256:"
            + hashlib.sha256(b"".join(registry.stream(layer.digest, layer.size))).hexdigest()
            for layer in found.layers
        ]
