from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.errors import BadResponse, ClipError, DigestMismatch, IndexFormatError, NotFound
from clip_runc.images import artifact, local
from clip_runc.images.source import registry_at
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.image import OCI_MANIFEST, RegistryImage
from clip_runc.registry.reference import Reference
from clip_runc.registry.referrers import Referrer, artifact_manifest
from tests.unit.images.small_clip import FILES, SmallImage


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry(referrers=True) as registry:
        yield registry


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


def hold(fake: FakeRegistry, small: SmallImage, tag: str = "1") -> str:
    """Put the image into the registry; its reference."""
    for blob in [small.config, *small.blobs.values()]:
        fake.add_blob(blob)
    fake.add_manifest("team/app", tag, small.manifest, OCI_MANIFEST)
    return f"{fake.host}/team/app:{tag}"


def image_at(settings: Settings, reference: str) -> RegistryImage:
    return registry_at(settings, Reference.parse(reference)).resolve()


def attach(fake: FakeRegistry, small: SmallImage, blob: bytes, **changes: Any) -> str:
    """An artifact of which ``changes`` replace parts."""
    layer = {"mediaType": artifact.LAYER_TYPE, "digest": fake.add_blob(blob), "size": len(blob)}
    layer |= changes.pop("layer", {})
    about = {"mediaType": OCI_MANIFEST, "digest": small.manifest_digest, "size": 3}
    annotations = changes.pop("annotations", {})
    made = json.loads(artifact_manifest(artifact.ARTIFACT_TYPE, layer, dict(about), annotations))
    return fake.add_manifest("team/app", "x", made | changes, OCI_MANIFEST)


def test_push_then_pull(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    small = SmallImage(FILES)
    reference = hold(fake, small)
    path = small.write(tmp_path / "small.clip")
    first = artifact.push_index(settings, image_at(settings, reference), str(path))
    assert (first.new, first.api, first.subject) == (True, True, small.manifest_digest)
    again = artifact.push_index(settings, image_at(settings, reference), str(path))
    assert (again.new, again.artifact) == (False, first.artifact)

    pulled = artifact.pull_index(settings, reference)
    assert (pulled.digest, pulled.artifact) == (small.manifest_digest, first.artifact)
    assert local.find(settings, reference) is not None
    with ClipFile.open(pulled.path) as clip, ClipFile.open(str(path)) as original:
        assert clip.source == f"{fake.host}/team/app", "its layers are beside it"
        assert clip.content_digest == original.content_digest


def test_push_of_an_index_of_another_image(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    reference = hold(fake, SmallImage(FILES))
    other = SmallImage({"a": b"b"}).write(tmp_path / "other.clip")
    with pytest.raises(ClipError, match="is an index of"):
        artifact.push_index(settings, image_at(settings, reference), str(other))
    assert fake.requests("POST") == fake.requests("PUT") == []


def kept(settings: Settings) -> list[str]:
    return [name for name in os.listdir(settings.index_dir) if not name.startswith(".lock")]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"subject": {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "1" * 64}}, BadResponse),
        ({"layers": []}, BadResponse),
        ({"artifactType": "application/other"}, NotFound),
        ({"layer": {"mediaType": "text/plain"}}, BadResponse),
        ({"layer": {"size": 10 << 30}}, BadResponse),
        ({"layer": {"size": -1}}, BadResponse),
        ({"annotations": {"dev.clip-runc.format": "2"}}, NotFound),
        ({"annotations": {"dev.clip-runc.platform": "plan9/mips"}}, NotFound),
    ],
)
def test_artifacts_that_lie(
    settings: Settings, fake: FakeRegistry, tmp_path: Path, changes: Any, error: type[ClipError]
) -> None:
    small = SmallImage(FILES)
    reference = hold(fake, small)
    attach(fake, small, small.write(tmp_path / "small.clip").read_bytes(), **changes)
    if "subject" in changes:
        fake.referrers = False
        data = json.dumps({"manifests": _listed(fake)}).encode()
        tag = small.manifest_digest.replace(":", "-")
        fake.add_manifest("team/app", tag, data, "application/vnd.oci.image.index.v1+json")
    with pytest.raises(error):
        artifact.pull_index(settings, reference)
    assert kept(settings) == []
    assert local.find(settings, reference) is None


def _listed(fake: FakeRegistry) -> list[dict[str, object]]:
    data = fake.manifests["team/app", "x"][0]
    digest = next(v for (_, v), (d, _) in fake.manifests.items() if d == data and ":" in v)
    entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(data)}
    return [{**entry, "artifactType": artifact.ARTIFACT_TYPE}]


def test_bytes_that_are_no_sound_index_of_the_image(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    small = SmallImage(FILES)
    reference = hold(fake, small)
    sound = small.write(tmp_path / "small.clip").read_bytes()
    other = SmallImage({"a": b"b"}).write(tmp_path / "other.clip").read_bytes()
    for blob, message in ((b"rubbish", "not a .clip file"), (other, "another image")):
        fake.manifests.pop(("team/app", "x"), None)
        digest = attach(fake, small, blob)
        with pytest.raises(ClipError, match=message):
            artifact.pull_index(settings, reference)
        del fake.manifests["team/app", digest]
    damaged = bytearray(sound)
    damaged[-100] ^= 1
    attach(fake, small, bytes(damaged))
    with pytest.raises(IndexFormatError):
        artifact.pull_index(settings, reference)
    assert kept(settings) == []


def test_a_sound_one_is_found_behind_bad_ones(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    small = SmallImage(FILES)
    reference = hold(fake, small)
    blob = small.write(tmp_path / "small.clip").read_bytes()
    attach(fake, small, b"rubbish", annotations={"dev.clip-runc.prefetch": "true"})
    attach(fake, small, b"more", annotations={"org.opencontainers.image.created": "2999"})
    good = attach(fake, small, blob, annotations={"org.opencontainers.image.created": "2020"})
    pulled = artifact.pull_index(settings, reference)
    assert (pulled.artifact, pulled.candidates) == (good, 3)
    assert "of 3" in pulled.why and "2020" in pulled.why


def test_a_blob_that_is_flipped_on_the_way(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    small = SmallImage(FILES)
    reference = hold(fake, small)
    blob = small.write(tmp_path / "small.clip").read_bytes()
    attach(fake, small, blob)
    fake.fault("flip", 200, times=-1, on=fake.add_blob(blob))
    with pytest.raises(DigestMismatch):
        artifact.pull_index(settings, reference)


def test_the_rule() -> None:
    def one(number: int, **said: str) -> Referrer:
        names = {"created": "org.opencontainers.image.created"}
        values = {names.get(k, f"dev.clip-runc.{k}"): v for k, v in said.items()}
        return Referrer(f"sha256:{number:064}", 1, artifact.ARTIFACT_TYPE, values)

    listed = [
        one(1, created="2024-01-01T00:00:00Z"),
        one(2, created="2025-01-01T00:00:00Z"),
        one(3, created="2020-01-01T00:00:00Z", prefetch="true"),
        one(4, format="2", prefetch="true"),
        one(5, platform="linux/s390x", prefetch="true"),
        one(6, platform="linux/amd64", format="1", created="2025-01-01T00:00:00Z"),
        one(7),
    ]
    order = [int(x.digest[7:]) for x in artifact.rank(reversed(listed), "linux/amd64")]
    assert order == [3, 2, 6, 1, 7]
