from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.errors import IndexFormatError, InvalidReference
from clip_runc.images.api import Check, create_from_oci_image, verify
from clip_runc.registry.fake import FakeRegistry
from tests.unit.images.small_clip import FILES, SmallImage


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as found:
        yield found


def index_of(image: SmallImage, fake: FakeRegistry, settings: Settings, path: Path) -> Path:
    blobs = [image.blobs[layer.digest] for layer in image.layers]
    fake.add_image("team/app", "1", blobs, diff_ids=image.diff_ids)
    create_from_oci_image(str(fake.reference("team/app", "1")), path, settings=settings)
    return path


def failed(checks: list[Check]) -> list[str]:
    return [check.text for check in checks if not check.ok]


def test_a_good_index(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    path = index_of(SmallImage(FILES), fake, settings, tmp_path / "x.clip")
    checks = verify(path, settings=settings)
    assert failed(checks) == []
    texts = [check.text for check in checks]
    assert "/bin -> usr/bin" in texts
    assert "/proc is a directory" in texts
    assert any("can be read in the registry" in text for text in texts)
    assert len(verify(path, settings=settings, offline=True)) == len(checks) - 2


def test_an_image_without_proc_is_said_and_fine(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    path = index_of(SmallImage({"app": b"x"}), fake, settings, tmp_path / "x.clip")
    checks = verify(path, settings=settings, offline=True)
    assert failed(checks) == []
    assert any("scratch" in check.text for check in checks)


def test_proc_that_is_a_file(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    path = index_of(SmallImage({"proc": b"x"}), fake, settings, tmp_path / "x.clip")
    assert failed(verify(path, settings=settings, offline=True)) == ["/proc is no directory"]


def test_a_layer_that_is_gone_from_the_registry(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    image = SmallImage(FILES, {"more": b"x"})
    path = index_of(image, fake, settings, tmp_path / "x.clip")
    del fake.blobs[image.layers[1].digest]
    bad = failed(verify(path, settings=settings))
    assert len(bad) == 1 and bad[0].startswith("layer 2 of 2")


def test_a_manifest_that_is_gone(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    path = index_of(SmallImage(FILES), fake, settings, tmp_path / "x.clip")
    fake.manifests.clear()
    assert len(failed(verify(path, settings=settings))) == 1


def test_a_damaged_index(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    path = index_of(SmallImage(FILES), fake, settings, tmp_path / "x.clip")
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    assert "damaged" in failed(verify(path, settings=settings, offline=True))[0]
    path.write_bytes(b"no index")
    with pytest.raises(IndexFormatError):
        verify(path, settings=settings)


def test_a_local_directory_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(InvalidReference, match="registry reference"):
        create_from_oci_image("oci:/tmp/ubuntu", tmp_path / "x.clip", settings=settings)
