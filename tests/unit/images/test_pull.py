"""Pulling an index: what is taken, what is refused, and who has to have signed it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.errors import (
    BadResponse,
    ClipError,
    ConfigError,
    DigestMismatch,
    IndexFormatError,
    NotFound,
    NotTrusted,
)
from clip_runc.images import artifact, local
from clip_runc.images.pull import pull_index
from clip_runc.images.source import registry_at
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.image import OCI_INDEX, OCI_MANIFEST
from clip_runc.registry.reference import Reference
from tests.unit.images.artifacts import attach, hold, image_at
from tests.unit.images.small_clip import FILES, SmallImage
from tests.unit.registry.cosigned import WAYS, new_key, public_pem, sign


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry(referrers=True) as registry:
        yield registry


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


def test_what_was_pushed_is_pulled(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    small = SmallImage(FILES)
    reference = hold(fake, small)
    path = small.write(tmp_path / "small.clip")
    first = artifact.push_index(settings, image_at(settings, reference), str(path))
    pulled = pull_index(settings, reference)
    assert (pulled.digest, pulled.artifact) == (small.manifest_digest, first.artifact)
    assert local.find(settings, reference) is not None
    with ClipFile.open(pulled.path) as clip, ClipFile.open(str(path)) as original:
        assert clip.source == f"{fake.host}/team/app", "its layers are beside it"
        assert clip.content_digest == original.content_digest


def kept(settings: Settings) -> list[str]:
    return [name for name in os.listdir(settings.index_dir) if not name.startswith(".lock")]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"subject": {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "1" * 64}}, BadResponse),
        ({"layers": []}, BadResponse),
        ({"artifactType": "application/other"}, NotFound),
        ({"layer": {"mediaType": "text/plain"}}, BadResponse),
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
        pull_index(settings, reference)
    assert kept(settings) == []
    assert local.find(settings, reference) is None


def test_an_index_of_ten_gigabytes(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    """Refused by the size that it declares; one that declares less ends at that."""
    small = SmallImage(FILES)
    reference = hold(fake, small)
    blob = small.write(tmp_path / "small.clip").read_bytes()
    attach(fake, small, blob, layer={"size": 10 << 30})
    with pytest.raises(BadResponse, match="an index of 10737418240 bytes"):
        pull_index(settings, reference)
    digest = fake.add_blob(blob)
    assert [seen for seen in fake.requests("GET") if digest in seen.path] == []
    attach(fake, small, blob + bytes(1 << 20), layer={"size": len(blob)})
    with pytest.raises(BadResponse):
        pull_index(settings, reference)
    assert kept(settings) == []


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
            pull_index(settings, reference)
        del fake.manifests["team/app", digest]
    damaged = bytearray(sound)
    damaged[-100] ^= 1
    attach(fake, small, bytes(damaged))
    with pytest.raises(IndexFormatError):
        pull_index(settings, reference)
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
    pulled = pull_index(settings, reference)
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
        pull_index(settings, reference)


@pytest.fixture
def wary(tmp_path: Path) -> tuple[Settings, Any]:
    """Settings that trust no registry but a key; and that key's private half."""
    key = new_key()
    path = tmp_path / "cosign.pub"
    path.write_bytes(public_pem(key))
    found = Settings(
        state_dir=str(tmp_path / "state"),
        run_dir=str(tmp_path / "run"),
        trusted_registries=[],
        trusted_keys=[str(path)],
    )
    return found, key


def signs(reference: str, digest: str, key: Any, way: str = "tag", signed: str = "") -> None:
    with registry_at(Settings(), Reference.parse(reference)) as registry:
        sign(registry, digest, key, way, signed)


@pytest.mark.parametrize("way", WAYS)
def test_a_signature_wins_trust(
    wary: tuple[Settings, Any], fake: FakeRegistry, tmp_path: Path, way: str
) -> None:
    settings, key = wary
    small = SmallImage(FILES)
    reference = hold(fake, small)
    one = attach(fake, small, small.write(tmp_path / "small.clip").read_bytes())
    with pytest.raises(NotTrusted, match="without a signature by a key of trusted_keys"):
        pull_index(settings, reference)
    assert kept(settings) == []
    signs(reference, one, key, way)
    pulled = pull_index(settings, reference)
    assert (pulled.artifact, pulled.signer) == (one, settings.trusted_keys[0])


def test_signatures_that_win_no_trust(
    wary: tuple[Settings, Any], fake: FakeRegistry, tmp_path: Path
) -> None:
    """Of another key; of the image itself; of the index of another image, moved here."""
    settings, key = wary
    small = SmallImage(FILES)
    reference = hold(fake, small)
    one = attach(fake, small, small.write(tmp_path / "small.clip").read_bytes())
    for digest, by, speaks_of in (
        (one, new_key(), one),
        (small.manifest_digest, key, small.manifest_digest),
        (one, key, small.manifest_digest),
    ):
        signs(reference, digest, by, signed=speaks_of)
        with pytest.raises(NotTrusted):
            pull_index(settings, reference)
    assert kept(settings) == []


def test_a_signed_index_of_another_image(
    wary: tuple[Settings, Any], fake: FakeRegistry, tmp_path: Path
) -> None:
    """The signature is good, and the index is bound to an image: it serves no other."""
    settings, key = wary
    small, other = SmallImage(FILES), SmallImage({"a": b"b"})
    reference = hold(fake, small)
    one = attach(fake, small, other.write(tmp_path / "other.clip").read_bytes())
    signs(reference, one, key)
    with pytest.raises(BadResponse, match="another image"):
        pull_index(settings, reference)
    assert kept(settings) == []


def test_a_signed_one_is_found_behind_many_others(
    wary: tuple[Settings, Any], fake: FakeRegistry, tmp_path: Path
) -> None:
    """Who may push and has no key cannot push the signed one out of sight."""
    settings, key = wary
    small = SmallImage(FILES)
    reference = hold(fake, small)
    blob = small.write(tmp_path / "small.clip").read_bytes()
    for number in range(12):
        attach(
            fake, small, blob, annotations={"org.opencontainers.image.created": f"{2990 + number}"}
        )
    one = attach(fake, small, blob, annotations={"org.opencontainers.image.created": "2020"})
    signs(reference, one, key)
    assert pull_index(settings, reference).artifact == one


def test_nobody_is_trusted(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    """No key, and another registry: nobody is asked, unless the caller says so."""
    small = SmallImage(FILES)
    reference = hold(fake, small)
    attach(fake, small, small.write(tmp_path / "small.clip").read_bytes())
    settings.trusted_registries = ("registry.example",)
    before = len(fake.seen)
    with pytest.raises(NotTrusted, match="neither by repository nor by key"):
        pull_index(settings, reference)
    assert len(fake.seen) == before
    assert pull_index(settings, reference, believe=True).digest == small.manifest_digest


def test_a_key_that_is_none(settings: Settings, fake: FakeRegistry) -> None:
    settings.trusted_registries, settings.trusted_keys = (), ("/nonexistent/cosign.pub",)
    with pytest.raises(ConfigError, match="No such file"):
        pull_index(settings, hold(fake, SmallImage(FILES)))


def test_each_platform_has_its_own(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    """An image of two platforms, two indexes for each; a machine takes the best of its own."""
    images = {p: SmallImage(FILES, platform=p) for p in ("linux/amd64", "linux/arm64")}
    rows, best = [], {}
    for platform, small in images.items():
        hold(fake, small, platform.replace("/", "-"))
        system, architecture = platform.split("/")
        rows.append(
            {
                "mediaType": OCI_MANIFEST,
                "digest": small.manifest_digest,
                "size": len(small.manifest),
                "platform": {"os": system, "architecture": architecture},
            }
        )
        blob = small.write(tmp_path / "one.clip").read_bytes()
        said = {"dev.clip-runc.platform": platform}
        attach(fake, small, blob, annotations={**said, "org.opencontainers.image.created": "2026"})
        best[platform] = attach(
            fake, small, blob, annotations={**said, "dev.clip-runc.prefetch": "true"}
        )
    whole = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}
    fake.add_manifest("team/app", "1", whole, OCI_INDEX)
    for platform, small in images.items():
        pulled = pull_index(settings, f"{fake.host}/team/app:1", platform=platform)
        assert (pulled.digest, pulled.platform) == (small.manifest_digest, platform)
        assert pulled.artifact == best[platform]
        assert pulled.why.startswith("of 2, 2 fit: with a prefetch list")


@pytest.mark.parametrize("asked", [None, "linux/s390x"])
def test_what_a_name_means_where_nobody_asks(
    settings: Settings, fake: FakeRegistry, tmp_path: Path, asked: str | None
) -> None:
    small = SmallImage(FILES, platform="linux/s390x")
    reference = hold(fake, small)
    attach(
        fake, small, small.write(tmp_path / "small.clip").read_bytes(),
        annotations={"dev.clip-runc.platform": "linux/s390x"},
    )  # fmt: skip
    pull_index(settings, reference, platform=asked)
    assert (local.find(settings, reference) is None) == (asked is not None)
    assert local.find(settings, reference, "linux/s390x") is not None


def test_a_list_that_names_itself_in_circles(settings: Settings, fake: FakeRegistry) -> None:
    """No digest can be in what it is the digest of: a loop shows as one name for ever."""
    row = {"mediaType": OCI_INDEX, "digest": "sha256:" + "5" * 64, "size": 10}
    whole = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [row]}
    fake.add_manifest("team/app", "1", whole, OCI_INDEX)
    data = fake.manifests["team/app", "1"]
    fake.manifests["team/app", row["digest"]] = data
    with pytest.raises(DigestMismatch, match="5555"):
        pull_index(settings, f"{fake.host}/team/app:1")
