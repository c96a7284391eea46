from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_runc.errors import BadResponse, DigestMismatch, RegistryError, Unauthorized
from clip_runc.registry import image, push
from clip_runc.registry.client import Registry
from clip_runc.registry.fake import FakeRegistry

Connect = Callable[..., Registry]
LAYER = b"a layer" * 1000
LAYER_DIGEST = image.digest_of(LAYER)


@pytest.mark.parametrize("auth", ["", "token"])
def test_push_image_and_read_it_back(connect: Connect, auth: str) -> None:
    with FakeRegistry(auth=auth) as fake:
        registry = connect(fake)
        digest = push.push_image(
            registry,
            [(LAYER, image.OCI_LAYER_GZIP, f"sha256:{'1' * 64}")],
            {"architecture": "arm64", "config": {"Env": ["A=b"]}},
        )
        found = registry.resolve("linux/arm64")
        assert found.manifest_digest == digest
        assert found.diff_ids == (f"sha256:{'1' * 64}",)
        assert json.loads(found.config)["config"] == {"Env": ["A=b"]}
        assert registry.blob(found.layers[0].digest, found.layers[0].size) == LAYER


def test_push_file(fake: FakeRegistry, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(LAYER)
    blob = connect(fake).push_blob(str(path))
    assert blob.digest == LAYER_DIGEST
    assert blob.size == len(LAYER)
    assert fake.blobs[LAYER_DIGEST] == LAYER


def test_push_large_file_in_chunks(
    fake: FakeRegistry, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "_AT_ONCE", 100)
    path = tmp_path / "layer"
    path.write_bytes(LAYER)
    connect(fake).push_blob(str(path))
    assert fake.blobs[LAYER_DIGEST] == LAYER
    assert len(fake.requests("PATCH")) == 1


def test_chunk_refused(
    fake: FakeRegistry, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "_AT_ONCE", 100)
    path = tmp_path / "layer"
    path.write_bytes(LAYER)
    fake.fault("status", 413, method="PATCH", times=-1)
    with pytest.raises(BadResponse, match="refused a chunk"):
        connect(fake).push_blob(str(path))


def test_present_blob_is_not_sent(fake: FakeRegistry, connect: Connect) -> None:
    fake.add_blob(LAYER)
    registry = connect(fake)
    assert registry.has_blob(LAYER_DIGEST)
    assert not registry.has_blob(image.digest_of(b"other"))
    registry.push_blob(LAYER)
    assert fake.requests("POST") == fake.requests("PUT") == []


def test_mount(fake: FakeRegistry, connect: Connect) -> None:
    fake.add_blob(LAYER)
    fake.fault("status", 404, method="HEAD")
    connect(fake).push_blob(LAYER, mount_from="other/app")
    assert "from=other%2Fapp" in fake.requests("POST")[0].path
    assert fake.requests("PUT") == []


def test_mount_that_the_registry_does_not_do(fake: FakeRegistry, connect: Connect) -> None:
    connect(fake).push_blob(LAYER, mount_from="other/app")
    assert fake.blobs[LAYER_DIGEST] == LAYER


def test_wrong_digests_are_found_before_anything_is_sent(
    fake: FakeRegistry, connect: Connect
) -> None:
    registry = connect(fake)
    with pytest.raises(DigestMismatch):
        registry.push_blob(LAYER, digest=image.digest_of(b"other"))
    with pytest.raises(DigestMismatch):
        registry.push_manifest(b"{}", image.OCI_MANIFEST, image.digest_of(b"other"))
    assert fake.seen == []


def test_push_manifest_keeps_its_bytes(fake: FakeRegistry, connect: Connect) -> None:
    registry = connect(fake)
    body = b'{ "schemaVersion": 2,\n "layers": [] }'
    digest = registry.push_manifest(body, image.OCI_MANIFEST, "odd")
    assert registry.manifest("odd") == (body, image.OCI_MANIFEST, digest)
    assert registry.push_manifest(body, image.OCI_MANIFEST, digest) == digest


def test_faults_while_pushing(fake: FakeRegistry, connect: Connect) -> None:
    fake.fault("status", 503, times=2, on="/uploads/", method="POST")
    fake.fault("status", 500, times=1, on="/uploads/", method="PUT")
    connect(fake).push_blob(LAYER)
    assert fake.blobs[LAYER_DIGEST] == LAYER


@pytest.mark.parametrize(
    ("status", "error"), [(403, Unauthorized), (400, BadResponse), (429, RegistryError)]
)
def test_push_refused(
    fake: FakeRegistry, connect: Connect, status: int, error: type[RegistryError]
) -> None:
    fake.fault("status", status, times=-1, on="/uploads/")
    with pytest.raises(error, match=str(status)):
        connect(fake, attempts=2).push_blob(LAYER)


def test_registry_that_stores_something_else(fake: FakeRegistry, connect: Connect) -> None:
    fake.fault("headers", on="/manifests/", headers={"Docker-Content-Digest": "sha256:0"})
    with pytest.raises(BadResponse, match="stored sha256:0"):
        connect(fake).push_manifest(b"{}", image.OCI_MANIFEST)


def test_registry_that_says_no_place(fake: FakeRegistry, connect: Connect) -> None:
    fake.fault("headers", on="/uploads/", headers={"Location": ""})
    with pytest.raises(BadResponse, match="did not say where"):
        connect(fake).push_blob(LAYER)
