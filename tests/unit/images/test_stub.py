from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_runc.config import ANNOTATION_IMAGE, Settings
from clip_runc.errors import IndexFormatError
from clip_runc.images import local, resolve, stub
from tests.unit.images.small_clip import FILES, SmallImage

CRI = "io.kubernetes.cri.image-name"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root filesystem of a stub of the small image."""
    directory = tmp_path / "rootfs/.clip"
    directory.mkdir(parents=True)
    SmallImage(FILES).write(directory / "index.clip")
    return tmp_path / "rootfs"


def test_a_stub_is_found_and_known_from_then_on(
    settings: Settings, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve.resolve(settings, {CRI: "registry.example/stub:1"}, str(root))
    assert (first.action, first.explicit) == (resolve.USE, False)
    assert (first.reference, first.why) == ("registry.example/stub:1", "a stub image")
    monkeypatch.setattr("clip_runc.images.adding.add_open", None)
    again = resolve.resolve(settings, {}, str(root))
    assert again.image is not None and first.image is not None
    assert again.image.manifest_hex == first.image.manifest_hex


def test_an_annotation_of_ours_comes_before_it(settings: Settings, root: Path) -> None:
    found = resolve.resolve(settings, {ANNOTATION_IMAGE: "registry.example/a/b:1"}, str(root))
    assert (found.action, found.reference) == (resolve.BUILD, "registry.example/a/b:1")


def test_it_stands_in_for_no_image_by_name_or_digest(settings: Settings, root: Path) -> None:
    """An index that claims to be of another image must not be what that image starts from."""
    small = SmallImage(FILES)
    found = stub.find(settings, str(root))
    assert found is not None and found.manifest_hex != small.manifest_hex
    name = "registry.example/team/app"
    for text in (small.manifest_digest, f"{name}@{small.manifest_digest}", name, small.diff_ids[0]):
        assert local.find(settings, text) is None, text
    info = local.info_of(settings, found.manifest_hex)
    assert local.find(settings, str(info["references"][0])) is None  # type: ignore[index]  # a list

    honest = root.parent / "honest.clip"
    honest.write_bytes((root / ".clip/index.clip").read_bytes())
    image = local.add(settings, str(honest), [f"{name}:1"])
    assert image.manifest_hex == small.manifest_hex
    after = stub.find(settings, str(root))
    assert after is not None and after.manifest_hex == found.manifest_hex


def loose_file(root: Path) -> None:
    (root / ".clip/index.clip").chmod(0o666)


def loose_directory(root: Path) -> None:
    (root / ".clip").chmod(0o777)


def link_to_a_file(root: Path) -> None:
    (root / ".clip/index.clip").rename(root.parent / "elsewhere")
    (root / ".clip/index.clip").symlink_to(root.parent / "elsewhere")


def link_to_a_directory(root: Path) -> None:
    (root / ".clip").rename(root.parent / "elsewhere")
    (root / ".clip").symlink_to(root.parent / "elsewhere")


def pipe(root: Path) -> None:
    (root / ".clip/index.clip").unlink()
    os.mkfifo(root / ".clip/index.clip")


def gone(root: Path) -> None:
    (root / ".clip/index.clip").unlink()


def empty_directory_name(root: Path) -> None:
    (root / ".clip").rename(root / "clip")


@pytest.mark.parametrize(
    "change",
    [
        loose_file,
        loose_directory,
        link_to_a_file,
        link_to_a_directory,
        pipe,
        gone,
        empty_directory_name,
    ],
)
def test_what_is_odd_is_no_stub(
    settings: Settings, root: Path, change: Callable[[Path], None]
) -> None:
    change(root)
    assert stub.find(settings, str(root)) is None
    assert resolve.resolve(settings, {}, str(root)).action == resolve.PASS


def test_a_damaged_index_is_an_error(settings: Settings, root: Path) -> None:
    path = root / ".clip/index.clip"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(IndexFormatError):
        stub.find(settings, str(root))
