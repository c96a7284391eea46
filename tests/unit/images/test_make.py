"""Making an index: everything but the bytes themselves, against a fake registry."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.errors import (
    ClipError,
    DigestMismatch,
    ImageNotIndexed,
    InvalidReference,
    NotFound,
    StoreError,
    Unauthorized,
)
from clip_runc.images import local, request
from clip_runc.images.make import index_image
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.fake import FakeRegistry
from tests.unit.images.small_clip import FILES, SmallImage, sha256

IMAGE = SmallImage(FILES, {"more": b"x" * 100_000})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as found:
        add(found)
        yield found


def add(fake: FakeRegistry) -> str:
    blobs = [IMAGE.blobs[layer.digest] for layer in IMAGE.layers]
    fake.add_image("team/app", "1", blobs, diff_ids=IMAGE.diff_ids)
    return str(fake.reference("team/app", "1"))


def add_of(fake: FakeRegistry, architecture: str) -> str:
    """The image again, for another machine and no other."""
    blobs = [IMAGE.blobs[layer.digest] for layer in IMAGE.layers]
    config = {"architecture": architecture}
    fake.add_image("team/other", "1", blobs, diff_ids=IMAGE.diff_ids, config=config)
    return str(fake.reference("team/other", "1"))


def test_an_image_of_another_machine_alone_is_what_its_name_means(
    settings: Settings, fake: FakeRegistry
) -> None:
    reference = add_of(fake, "s390x")
    made = request.build(settings, reference)
    for platform in (None, "linux/s390x"):
        found = local.find(settings, reference, platform)
        assert found is not None and found.digest == made.digest


def test_a_platform_that_was_asked_for_is_not_what_the_name_means(
    settings: Settings, fake: FakeRegistry
) -> None:
    reference = add_of(fake, "s390x")
    index_image(settings, reference, platform="linux/s390x")
    assert local.find(settings, reference) is None
    assert local.find(settings, reference, "linux/s390x") is not None


def test_the_index_is_in_the_store_and_at_the_output(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    reference = str(fake.reference("team/app", "1"))
    seen: list[tuple[str, int, int]] = []
    result = index_image(
        settings,
        reference,
        str(tmp_path / "app.clip"),
        progress=lambda layer, done, total: seen.append((layer, done, total)),
    )
    found = local.find(settings, reference)
    assert found is not None and found.digest == result.digest
    assert (tmp_path / "app.clip").read_bytes() == Path(found.index_path).read_bytes()
    assert (tmp_path / "app.clip").stat().st_mode & 0o777 == 0o644
    assert local.find(settings, f"{fake.host}/team/app@{result.pinned}") is not None
    assert {(layer, done) for layer, done, total in seen if done == total} == {
        (layer.digest, layer.size) for layer in IMAGE.layers
    }
    assert result.as_dict()["compressed"] == sum(layer.size for layer in IMAGE.layers)
    assert result.fetched == result.compressed and result.layers == 2
    assert os.listdir(tmp_path / "state/indexes") and not list(tmp_path.glob("**/*.new"))


def test_a_layer_that_was_indexed_is_not_fetched_again(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    reference = str(fake.reference("team/app", "1"))
    index_image(settings, reference)
    output = str(tmp_path / "again.clip")
    assert index_image(settings, reference, output, store=False).fetched == 0


def test_a_reference_by_digest(settings: Settings, fake: FakeRegistry) -> None:
    name = sha256(fake.manifests[("team/app", "1")][0])
    result = index_image(settings, str(fake.reference("team/app", name)))
    assert result.digest == result.pinned == name


@pytest.mark.parametrize("reference", ["oci:/tmp/x", "/tmp/x", "./x", "host/UPPER/case"])
def test_what_is_no_reference(settings: Settings, tmp_path: Path, reference: str) -> None:
    with pytest.raises(InvalidReference):
        index_image(settings, reference, str(tmp_path / "x.clip"))
    assert os.listdir(tmp_path) == []


def test_an_image_that_is_not_there(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        index_image(settings, f"{fake.host}/team/other:1", str(tmp_path / "x.clip"))
    assert not list(tmp_path.glob("*clip*"))


def test_a_wrong_layer_leaves_no_file(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    fake.fault("flip", 40, times=-1, on=IMAGE.layers[1].digest)
    with pytest.raises(DigestMismatch):
        index_image(settings, str(fake.reference("team/app", "1")), str(tmp_path / "x.clip"))
    assert not list(tmp_path.glob("*clip*")) and local.find(settings, "team/app:1") is None


def test_an_output_where_nothing_can_be_written(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="missing"):
        index_image(
            settings, str(fake.reference("team/app", "1")), str(tmp_path / "missing/x.clip")
        )
    with pytest.raises(StoreError, match="lost"):
        index_image(settings, str(fake.reference("team/app", "1")), None, store=False)


def test_credentials_are_used_and_in_no_argv_and_no_environment(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeRegistry(auth="basic", password="s3cret-word") as fake:
        reference = add(fake)
        with pytest.raises(Unauthorized):
            index_image(settings, reference)
        auths = tmp_path / "auth.json"
        auths.write_text(
            f'{{"auths": {{"{fake.host}": {{"username": "user", "password": "s3cret-word"}}}}}}'
        )
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auths))
        started: list[str] = []
        popen = subprocess.Popen

        def watch(argv: list[str], **options: object) -> object:
            started.append(f"{argv} {options}")
            return popen(argv, **options)  # type: ignore[call-overload]

        monkeypatch.setattr(subprocess, "Popen", watch)
        assert index_image(settings, reference).layers == 2
    assert started and "s3cret-word" not in "".join(started)


def test_the_builder_has_no_privileges(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    """Its files in the cache belong to the uid that it runs as."""
    index_image(settings, str(fake.reference("team/app", "1")))
    owners = {path.stat().st_uid for path in Path(settings.layer_index_dir).iterdir()}
    assert owners == {settings.server_uid}


def test_a_builder_that_dies_is_an_error(
    settings: Settings, fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clip_runc.images.make.sys.executable", "/bin/false")
    with pytest.raises(ClipError, match="did not finish: exit status 1"):
        index_image(settings, str(fake.reference("team/app", "1")), str(tmp_path / "x.clip"))
    assert not list(tmp_path.glob("*clip*"))


class TestRequest:
    """The same, asked for by the shim."""

    def test_build(self, settings: Settings, fake: FakeRegistry) -> None:
        reference = str(fake.reference("team/app", "1"))
        seen: list[str] = []
        image = request.build(settings, reference, lambda layer, done, total: seen.append(layer))
        assert set(seen) == {layer.digest for layer in IMAGE.layers}
        with ClipFile.open(image.index_path) as clip:
            assert clip.source == f"{fake.host}/team/app"
        count = len(fake.seen)
        assert request.build(settings, reference).digest == image.digest
        assert len(fake.seen) == count, "what is here is not built again"

    def test_an_error_arrives_as_what_it_was(self, settings: Settings, fake: FakeRegistry) -> None:
        with pytest.raises(NotFound, match="other"):
            request.build(settings, f"{fake.host}/team/other:1")

    def test_no_answer(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/bin/true")
        with pytest.raises(ClipError, match="without an answer"):
            request.build(settings, "registry.example/team/app:1")

    def test_an_answer_that_makes_no_sense(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(request, "_command", lambda *arguments: ["echo", "hello"])
        monkeypatch.setattr(sys, "executable", "/bin/echo")
        with pytest.raises(ClipError, match="hello"):
            request.build(settings, "registry.example/team/app:1")

    def test_a_result_that_is_not_found(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(request, "_run", lambda *arguments: None)
        with pytest.raises(ImageNotIndexed):
            request.build(settings, "registry.example/team/app:1")

    @pytest.mark.parametrize("kind", ["ValueError", "os", "ClipError", "", None])
    def test_an_error_of_no_class_of_ours(self, kind: object) -> None:
        assert type(request.error_of({"error": kind, "message": "m"})) is ClipError
