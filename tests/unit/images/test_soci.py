"""Which zTOC is believed: of an index that the manifest names, or of one that refers to it."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.errors import BadResponse, DigestMismatch, LayerFormatError
from clip_runc.images import soci
from clip_runc.images.build import build_index
from clip_runc.images.make import index_image
from clip_runc.images.rebuild import differences
from clip_runc.images.soci import TYPE_V1
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.image import OCI_INDEX, OCI_MANIFEST, Descriptor
from tests.unit.images import blobs
from tests.unit.images.test_published import changes
from tests.unit.index.published_layers import digest
from tests.unit.index.ztoc_writer import ztoc

TAR = blobs.mixed_tar(4_000_000)
BLOB = gzip.compress(TAR, 1, mtime=0)
OTHER = blobs.tar_of({"other": b"not described"})
OTHER_BLOB = gzip.compress(OTHER, mtime=0)


@pytest.fixture(scope="module")
def described() -> bytes:
    """The zTOC of ``BLOB``, made of what indexing finds."""
    out = io.BytesIO()
    build_index(blobs.source_of((TAR, BLOB, "+gzip")), out, checkpoint_mib=1)
    descriptor = os.memfd_create("clip")
    os.write(descriptor, out.getvalue())
    with ClipFile.open(descriptor) as clip:
        os.close(descriptor)
        return ztoc(TAR, BLOB, clip.layers[0], lambda number: clip.window(0, number))


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as found:
        yield found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


def soci_index(fake: FakeRegistry, described: bytes, subject: str = "") -> str:
    row = {
        "mediaType": "application/octet-stream",
        "digest": fake.add_blob(described),
        "size": len(described),
        "annotations": {"com.amazon.soci.image-layer-digest": digest(BLOB)},
    }
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": TYPE_V1, "digest": fake.add_blob(b"{}"), "size": 2},
        "layers": [row],
    }
    if subject:
        manifest["subject"] = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}
    return fake.add_manifest("team/app", "soci", manifest, OCI_MANIFEST)


def add(fake: FakeRegistry, annotations: dict[str, str] | None = None) -> str:
    """The image: its digest."""
    layers = [BLOB, OTHER_BLOB]
    name = fake.add_image("team/app", "1", layers, diff_ids=[digest(TAR), digest(OTHER)])
    if annotations is None:
        return name
    manifest = json.loads(fake.manifests["team/app", name][0]) | {"annotations": annotations}
    return fake.add_manifest("team/app", "1", manifest, OCI_MANIFEST)


def refer(fake: FakeRegistry, image: str, *indexes: str) -> None:
    """List referrers as registries without the API have them."""
    rows = [
        {"mediaType": OCI_MANIFEST, "digest": one, "size": 5, "artifactType": TYPE_V1}
        for one in indexes
    ]
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}
    fake.add_manifest("team/app", image.replace(":", "-"), body, OCI_INDEX)


def origins(settings: Settings, fake: FakeRegistry, path: Path) -> tuple[list[str], list[str]]:
    reference = str(fake.reference("team/app", "1"))
    result = index_image(settings, reference, str(path), store=False, published=True)
    with ClipFile.open(str(path)) as clip:
        return [layer.origin for layer in clip.layers], list(result.warnings)


@pytest.mark.parametrize("version", [1, 2])
def test_the_same_tree_without_fetching_the_layer(
    settings: Settings, fake: FakeRegistry, described: bytes, tmp_path: Path, version: int
) -> None:
    if version == 1:
        image = add(fake)
        refer(fake, image, soci_index(fake, described, image))
    else:
        add(fake, {"com.amazon.soci.index-digest": soci_index(fake, described)})
        settings = Settings(**{**vars_of(settings), "trusted_registries": ()})
    path = tmp_path / "x.clip"
    found, warnings = origins(settings, fake, path)
    assert found == ["ztoc", ""]
    assert len(warnings) == 1 and "has no table of contents" in warnings[0]
    assert not fake.requests(on=digest(BLOB))
    assert differences(settings, str(path)) == []
    whole = tmp_path / "whole.clip"
    index_image(settings, str(fake.reference("team/app", "1")), str(whole), store=False)
    assert changes(path, whole) == []


def vars_of(settings: Settings) -> dict[str, object]:
    return {"state_dir": settings.state_dir, "run_dir": settings.run_dir}


def test_what_only_refers_to_an_image_is_not_looked_for_without_trust(
    settings: Settings, fake: FakeRegistry, described: bytes, tmp_path: Path
) -> None:
    image = add(fake)
    refer(fake, image, soci_index(fake, described, image))
    wary = Settings(**{**vars_of(settings), "trusted_registries": ("registry.example",)})
    found, warnings = origins(wary, fake, tmp_path / "x.clip")
    assert found == ["", ""] and len(warnings) == 2
    assert not fake.requests(on="referrers") and not fake.requests(on=image.replace(":", "-"))


def test_an_index_of_another_image_and_a_wrong_ztoc(
    settings: Settings, fake: FakeRegistry, described: bytes, tmp_path: Path
) -> None:
    image = add(fake)
    refer(fake, image, soci_index(fake, described, digest(b"another")))
    found, warnings = origins(settings, fake, tmp_path / "x.clip")
    assert found == ["", ""] and "does not refer to" in warnings[0]
    refer(fake, image, soci_index(fake, described[:-9] + bytes(9) + b"more", image))
    found, _ = origins(settings, fake, tmp_path / "y.clip")
    assert found == ["ztoc", ""]  # rubbish behind a buffer harms nobody
    refer(fake, image, soci_index(fake, bytes(100), image))
    found, warnings = origins(settings, fake, tmp_path / "z.clip")
    assert found == ["", ""] and "zTOC" in warnings[0]


def test_a_ztoc_is_fetched_whole_verified_and_bounded(fake: FakeRegistry) -> None:
    class Liar:
        def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
            yield b"anything"

    with pytest.raises(DigestMismatch):
        soci.fetch(Liar(), Descriptor(digest(b"x"), 8, ""))  # type: ignore[arg-type]
    with pytest.raises(LayerFormatError, match="we read"):
        soci.fetch(Liar(), Descriptor(digest(b"x"), 1 << 40, ""))  # type: ignore[arg-type]
    with pytest.raises(BadResponse):
        soci._listed(b'{"layers": [5]}', "x")
    assert soci._listed(b'{"layers": 5}', "x") == {}
