from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.errors import ImageNotIndexed, IndexFormatError, StoreError
from clip_runc.images import local
from clip_runc.index.clipfile import ClipFile
from tests.unit.images.small_clip import FILES, SmallImage, sha256


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


@pytest.fixture(scope="module")
def image() -> SmallImage:
    return SmallImage(FILES)


@pytest.fixture
def index(image: SmallImage, tmp_path: Path) -> Path:
    return image.write(tmp_path / "small.clip")


def added(settings: Settings) -> set[str]:
    return {name for name in os.listdir(settings.index_dir) if not name.startswith(".lock")}


def test_nothing_is_found_before_anything_was_added(settings: Settings) -> None:
    assert local.find(settings, "docker.io/library/ubuntu:24.04") is None
    assert list(local.list_images(settings)) == []


def test_an_added_index_is_there_with_its_erofs_image(
    settings: Settings, image: SmallImage, index: Path
) -> None:
    found = local.add(settings, str(index))
    assert found.manifest_hex == image.manifest_hex
    assert Path(found.index_path).read_bytes() == index.read_bytes()
    with ClipFile.open(str(index)) as clip:
        assert Path(found.erofs_path).read_bytes() == clip.erofs()
    assert added(settings) == {f"{image.manifest_hex}.{x}" for x in ("clip", "erofs", "json")}
    assert os.stat(found.erofs_path).st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "asked",
    [
        "ubuntu:24.04",
        "docker.io/library/ubuntu:24.04",
        "library/ubuntu:24.04",
        "docker://ubuntu:24.04",
        "registry.example/never/mind@{digest}",
        "{digest}",
        "{image_id}",
    ],
)
def test_every_spelling_finds_it(
    settings: Settings, image: SmallImage, index: Path, asked: str
) -> None:
    local.add(settings, str(index), ["ubuntu:24.04"])
    name = asked.format(digest=image.manifest_digest, image_id=sha256(image.config))
    found = local.find(settings, name)
    assert found is not None and found.manifest_hex == image.manifest_hex


@pytest.mark.parametrize(
    "asked",
    ["", "ubuntu", "ubuntu:24.10", "latest", "oci:/tmp/x", "/etc", "\0", "\udcff", "a" * 5000],
)
def test_other_strings_are_simply_not_found(settings: Settings, index: Path, asked: str) -> None:
    local.add(settings, str(index), ["ubuntu:24.04"])
    assert local.find(settings, asked) is None


def test_a_digest_of_a_multi_platform_index_is_a_reference_like_others(
    settings: Settings, index: Path
) -> None:
    reference = f"docker.io/library/ubuntu@sha256:{'ab' * 32}"
    local.add(settings, str(index), [reference])
    assert local.find(settings, reference) is not None


def test_an_image_of_another_platform_is_found_only_when_it_is_asked_for(
    settings: Settings, index: Path, tmp_path: Path
) -> None:
    other = SmallImage(FILES, platform="linux/s390x").write(tmp_path / "other.clip")
    here = local.add(settings, str(index), ["ubuntu:24.04"])
    there = local.add(settings, str(other), ["ubuntu:24.04"])
    found = local.find(settings, "ubuntu:24.04")
    assert found is not None and found.manifest_hex == here.manifest_hex
    found = local.find(settings, "ubuntu:24.04", "linux/s390x")
    assert found is not None and found.manifest_hex == there.manifest_hex


def test_adding_the_same_again_changes_no_file_and_keeps_both_references(
    settings: Settings, index: Path
) -> None:
    first = local.add(settings, str(index), ["ubuntu:24.04"])
    before = os.stat(first.erofs_path), os.stat(first.index_path)
    second = local.add(settings, str(index), ["ubuntu:latest"])
    assert (os.stat(second.erofs_path), os.stat(second.index_path)) == before
    assert [names for _, names in local.list_images(settings)] == [
        ["ubuntu:24.04", "ubuntu:latest"]
    ]


def test_a_reference_that_moved_means_the_new_image(
    settings: Settings, index: Path, tmp_path: Path
) -> None:
    local.add(settings, str(index), ["ubuntu:24.04"])
    newer = SmallImage({**FILES, "new": b"1"})
    local.add(settings, str(newer.write(tmp_path / "newer.clip")), ["ubuntu:24.04"])
    found = local.find(settings, "ubuntu:24.04")
    assert found is not None and found.manifest_hex == newer.manifest_hex


def test_another_index_of_the_same_manifest_takes_its_place(
    settings: Settings, image: SmallImage, index: Path, tmp_path: Path
) -> None:
    local.add(settings, str(index), ["ubuntu:24.04"])
    other = tmp_path / "other.clip"
    other.write_bytes(index.read_bytes().replace(b"registry.example", b"elsewhere.exampl"))
    # the change breaks the checksum of that section: refused, and the old one stays
    with pytest.raises(IndexFormatError):
        local.add(settings, str(other), ["ubuntu:24.04"])
    found = local.find(settings, "ubuntu:24.04")
    assert found is not None and Path(found.index_path).read_bytes() == index.read_bytes()
    image_elsewhere = SmallImage(FILES)
    image_elsewhere.reference = type("Name", (), {"name": "elsewhere.example/team/app"})()
    other = image_elsewhere.write(tmp_path / "elsewhere.clip")
    assert local.add(settings, str(other)).manifest_hex == image.manifest_hex
    assert Path(found.index_path).read_bytes() == other.read_bytes()


@pytest.mark.parametrize("damage", [0, 100, -1])
def test_a_damaged_index_is_refused_and_leaves_nothing(
    settings: Settings, index: Path, damage: int
) -> None:
    data = bytearray(index.read_bytes())
    data[damage] ^= 0x55
    index.write_bytes(data)
    with pytest.raises(IndexFormatError, match=r"small\.clip"):
        local.add(settings, str(index), ["ubuntu:24.04"])
    assert added(settings) == set()
    assert os.listdir(settings.reference_dir) == []


def test_what_is_no_file_is_refused(settings: Settings, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", "fifo", "."):
        with pytest.raises(IndexFormatError):
            local.add(settings, str(tmp_path / name))


def test_a_damaged_record_is_as_good_as_none(settings: Settings, index: Path) -> None:
    local.add(settings, str(index), ["ubuntu:24.04"])
    for text in ("", "[]", "{", json.dumps({"reference": "x", "digest": "sha256:../../x"})):
        for path in Path(settings.reference_dir).iterdir():
            path.write_text(text)
        assert local.find(settings, "ubuntu:24.04") is None


def test_what_is_known_of_an_image(settings: Settings, image: SmallImage, index: Path) -> None:
    local.add(settings, str(index), ["ubuntu:24.04"])
    info = local.info_of(settings, image.manifest_hex)
    assert info["source"] == "registry.example/team/app"
    assert info["platform"] == local.host_platform()
    assert info["layers"] == [
        {
            "digest": image.layers[0].digest,
            "diff": image.diff_ids[0][7:],
            "size": image.layers[0].size,
            "raw_size": len(image.tars[0]),
        }
    ]


def test_remove_forgets_all_names(settings: Settings, image: SmallImage, index: Path) -> None:
    local.add(settings, str(index), ["ubuntu:24.04", "ubuntu:latest"])
    local.remove(settings, "ubuntu:latest")
    assert added(settings) == set()
    assert os.listdir(settings.reference_dir) == []
    with pytest.raises(ImageNotIndexed):
        local.remove(settings, "ubuntu:24.04")


def test_an_image_in_use_is_not_removed(settings: Settings, image: SmallImage, index: Path) -> None:
    local.add(settings, str(index), ["ubuntu:24.04"])
    lease = Path(settings.lease_dir, image.manifest_hex, "c1-0123456789abcdef01234567")
    lease.parent.mkdir(parents=True)
    lease.touch()
    with pytest.raises(StoreError, match="c1-"):
        local.remove(settings, "ubuntu:24.04")
    assert local.find(settings, "ubuntu:24.04") is not None
