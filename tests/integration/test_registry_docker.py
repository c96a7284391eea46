"""The client against Debian's docker-registry: what our own fake cannot prove."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clip_runc.errors import DigestMismatch, NotFound, Unauthorized
from clip_runc.registry import image, push
from clip_runc.registry.client import Registry
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.reference import Reference
from tests.integration.prerequisites import need

PROGRAM = "docker-registry"
USER = Credentials("tester", "correct horse")
# crypt.crypt("correct horse", "$2b$05$abcdefghijklmnopqrstuu")
HTPASSWD = "tester:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n"
RAW = random.Random(3).randbytes(5 << 20)
LAYER = gzip.compress(RAW, 1, mtime=0)
DIFF_ID = image.digest_of(RAW)

CONFIG = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {root}/data}}
http: {{addr: "127.0.0.1:{port}"}}
{auth}
"""
AUTH = "auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError as error:
            error.close()  # 401: it is there
            return
        except OSError:
            assert process.poll() is None, f"{PROGRAM} ended with {process.returncode}"
            time.sleep(0.05)
    raise AssertionError(f"{PROGRAM} does not answer at {url}")


@pytest.fixture(scope="module", params=["open", "htpasswd"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A docker-registry of our own, with and without passwords: its host, its directory."""
    need("docker-registry")
    root, port = tmp_path_factory.mktemp("registry"), free_port()
    (root / "htpasswd").write_text(HTPASSWD)
    auth = AUTH.format(root=root) if request.param == "htpasswd" else ""
    (root / "config.yml").write_text(CONFIG.format(root=root, port=port, auth=auth))
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, "serve", str(root / "config.yml")], stdout=log, stderr=log, cwd=root
        )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/v2/", process)
        yield f"127.0.0.1:{port}", root
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(root)


@pytest.fixture
def host(served: tuple[str, Path]) -> str:
    return served[0]


Connect = Callable[..., Registry]


@pytest.fixture
def connect(host: str) -> Iterator[Connect]:
    """Make clients of a repository there; closed at the end."""
    made: list[Registry] = []

    def make(name: str = "team/app:1", credentials: Credentials | None = USER) -> Registry:
        reference = Reference.parse(f"{host}/{name}")
        made.append(Registry(reference, credentials=credentials, attempts=3))
        return made[-1]

    yield make
    for registry in made:
        registry.close()


@pytest.fixture
def pushed(connect: Connect) -> Registry:
    registry = connect()
    layers = [(LAYER, image.OCI_LAYER_GZIP, DIFF_ID)]
    push.push_image(registry, layers, {"config": {"Cmd": ["/bin/sh"]}})
    return registry


def test_push_and_resolve(pushed: Registry, connect: Connect) -> None:
    found = connect().resolve("linux/amd64")
    assert found.diff_ids == (DIFF_ID,)
    assert found.layers[0].digest == image.digest_of(LAYER)
    by_digest = connect(f"team/app@{found.manifest_digest}").resolve()
    assert by_digest.manifest == found.manifest
    assert by_digest.config == found.config


def test_docker_media_types(connect: Connect) -> None:
    registry = connect("team/docker:1")
    push.push_image(
        registry,
        [(LAYER, "application/vnd.docker.image.rootfs.diff.tar.gzip", DIFF_ID)],
        {},
        media_type=image.DOCKER_MANIFEST,
        config_type=image.DOCKER_CONFIG,
    )
    assert registry.resolve().media_type == image.DOCKER_MANIFEST


def test_ranges_in_parallel(pushed: Registry) -> None:
    digest = image.digest_of(LAYER)
    rng = random.Random(5)
    ranges = [sorted(rng.sample(range(len(LAYER) + 1), 2)) for _ in range(64)]
    with ThreadPoolExecutor(8) as pool:
        pieces = pool.map(lambda r: pushed.read_range(digest, *r), ranges)
        for (start, end), piece in zip(ranges, pieces, strict=True):
            assert piece == LAYER[start:end]


def test_stream(pushed: Registry) -> None:
    digest = image.digest_of(LAYER)
    assert b"".join(pushed.stream(digest, len(LAYER))) == LAYER
    assert b"".join(pushed.stream(digest, len(LAYER), 1234)) == LAYER[1234:]


def test_large_file_in_chunks(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "_AT_ONCE", 1 << 20)
    registry = connect("team/large:1")
    path = tmp_path / "blob"
    with path.open("wb") as file:
        file.write(RAW * 7)  # three of oras's chunks
    blob = registry.push_blob(str(path))
    assert registry.has_blob(blob.digest)
    actual = hashlib.sha256(b"".join(registry.stream(blob.digest, blob.size))).hexdigest()
    assert blob.digest == f"sha256:{actual}"


def test_mount_from_another_repository(pushed: Registry, connect: Connect) -> None:
    other = connect("other/app:1")
    digest = image.digest_of(LAYER)
    assert not other.has_blob(digest)
    assert other.push_blob(LAYER, mount_from="team/app").digest == digest
    assert other.has_blob(digest)


def test_digest_mismatch_of_what_is_pushed(pushed: Registry) -> None:
    with pytest.raises(DigestMismatch):
        pushed.push_manifest(b"{}", image.OCI_MANIFEST, image.digest_of(b"x"))
    with pytest.raises(DigestMismatch):
        pushed.push_blob(b"x", digest=image.digest_of(b"y"))


def test_damaged_blob_and_manifest(connect: Connect, served: tuple[str, Path]) -> None:
    registry = connect("team/damaged:1")
    push.push_image(registry, [(LAYER, image.OCI_LAYER_GZIP, DIFF_ID)], {"author": "nobody"})
    found = registry.resolve()
    blobs = served[1] / "data/docker/registry/v2/blobs/sha256"
    for digest in (found.config_descriptor.digest, found.manifest_digest):
        name = digest.removeprefix("sha256:")
        path = blobs / name[:2] / name / "data"
        path.write_bytes(path.read_bytes().replace(b"sha256", b"sha257", 1))
        with pytest.raises(DigestMismatch, match=r"has digest|have digest"):
            registry.resolve()


def test_multi_platform(connect: Connect) -> None:
    entries = []
    for architecture in ("amd64", "arm64"):
        registry = connect(f"team/multi:{architecture}")
        layers = [(LAYER, image.OCI_LAYER_GZIP, DIFF_ID)]
        digest = push.push_image(registry, layers, {"architecture": architecture})
        size = len(registry.manifest()[0])
        platform = {"os": "linux", "architecture": architecture}
        entries.append(
            {"mediaType": image.OCI_MANIFEST, "digest": digest, "size": size, "platform": platform}
        )
    index = {"schemaVersion": 2, "mediaType": image.OCI_INDEX, "manifests": entries}
    registry = connect("team/multi:all")
    registry.push_manifest(json.dumps(index).encode(), image.OCI_INDEX)
    assert registry.resolve("linux/arm64/v8").platform == "linux/arm64"
    with pytest.raises(NotFound, match="have linux/amd64, linux/arm64"):
        registry.resolve("linux/riscv64")


def test_errors_name_what_was_asked_for(pushed: Registry, connect: Connect, host: str) -> None:
    with pytest.raises(NotFound, match=f"{host}/team/app:none: not found"):
        connect("team/app:none").resolve()
    with pytest.raises(NotFound, match=f"{host}/no/such:1: not found"):
        connect("no/such:1").resolve()
    with pytest.raises(NotFound, match="not found"):
        pushed.read_range(image.digest_of(b"nothing"), 0, 5)


def test_wrong_and_missing_passwords(
    request: pytest.FixtureRequest, pushed: Registry, connect: Connect
) -> None:
    for credentials in (None, Credentials("tester", "wrong")):
        registry = connect(credentials=credentials)
        if "htpasswd" in request.node.name:
            with pytest.raises(Unauthorized, match="access denied"):
                registry.resolve()
        else:
            assert registry.resolve().platform == "linux/amd64"
