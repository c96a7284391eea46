from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.config import ANNOTATION_IMAGE, ANNOTATION_INDEX, Settings
from clip_runc.errors import BundleError, ImageNotIndexed, IndexFormatError, InvalidReference
from clip_runc.images import local, resolve
from tests.unit.images.small_clip import FILES, SmallImage

CRI = "io.kubernetes.cri.image-name"
OCI = "org.opencontainers.image.ref.name"


def settings_at(tmp_path: Path, **values: object) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"), **values)


@pytest.fixture(scope="module")
def image() -> SmallImage:
    return SmallImage(FILES)


@pytest.fixture
def settings(tmp_path: Path, image: SmallImage) -> Settings:
    found = settings_at(tmp_path)
    local.add(found, str(image.write(tmp_path / "small.clip")), ["docker.io/library/app:1"])
    return found


def test_no_annotation_means_pass(settings: Settings) -> None:
    assert resolve.resolve(settings, {}).action == resolve.PASS


@pytest.mark.parametrize("key", [ANNOTATION_IMAGE, CRI, OCI])
def test_an_image_that_is_here_is_used(settings: Settings, image: SmallImage, key: str) -> None:
    found = resolve.resolve(settings, {key: "app:1"})
    assert found.action == resolve.USE and found.image is not None
    assert found.image.manifest_hex == image.manifest_hex
    assert found.explicit == (key == ANNOTATION_IMAGE)
    assert key in found.why


def test_ours_comes_before_all(settings: Settings) -> None:
    found = resolve.resolve(settings, {CRI: "app:1", ANNOTATION_IMAGE: "app:2"})
    assert (found.action, found.reference, found.explicit) == (resolve.BUILD, "app:2", True)


def test_a_later_annotation_is_used_where_the_first_is_not_known(settings: Settings) -> None:
    found = resolve.resolve(settings, {CRI: "registry.k8s.io/pause:3.9", OCI: "app:1"})
    assert found.action == resolve.USE


@pytest.mark.parametrize(
    ("policy", "action"), [("build", resolve.BUILD), ("pass", resolve.PASS), ("fail", None)]
)
@pytest.mark.parametrize("key", [ANNOTATION_IMAGE, CRI])
def test_policies(tmp_path: Path, policy: str, action: str | None, key: str) -> None:
    which = "explicit_policy" if key == ANNOTATION_IMAGE else "implicit_policy"
    settings = settings_at(tmp_path, **{which: policy})
    annotations = {key: "docker.io/library/app:1"}
    if action is None:
        with pytest.raises(ImageNotIndexed, match="app:1"):
            resolve.resolve(settings, annotations)
        return
    found = resolve.resolve(settings, annotations)
    assert (found.action, found.image) == (action, None)
    assert "not indexed" in found.why


@pytest.mark.parametrize("reference", ["oci:/tmp/ubuntu:latest", "/tmp/ubuntu", "./x", "dir:x"])
def test_a_local_image_is_refused_with_the_reason(settings: Settings, reference: str) -> None:
    with pytest.raises(InvalidReference, match="registry reference"):
        resolve.resolve(settings, {ANNOTATION_IMAGE: reference})


@pytest.mark.parametrize("value", ["", None, 7, ["app:1"]])
@pytest.mark.parametrize("key", [ANNOTATION_IMAGE, ANNOTATION_INDEX])
def test_an_explicit_annotation_has_to_be_a_string(
    settings: Settings, key: str, value: object
) -> None:
    if value is None:
        assert resolve.resolve(settings, {key: value}).action == resolve.PASS
        return
    with pytest.raises(BundleError, match=key):
        resolve.resolve(settings, {key: value})


@given(st.one_of(st.text(), st.none(), st.integers(), st.sampled_from(["oci:/x", "latest", "/a"])))
def test_implicit_annotations_never_fail(value: object) -> None:
    settings = Settings(state_dir="/nonexistent/state", run_dir="/nonexistent/run")
    found = resolve.resolve(settings, {CRI: value})
    assert (found.action, found.image) == (resolve.PASS, None)


def test_a_tag_alone_is_never_built(tmp_path: Path) -> None:
    settings = settings_at(tmp_path, implicit_policy="build")
    assert resolve.resolve(settings, {OCI: "latest"}).action == resolve.PASS


class TestIndexFile:
    def test_it_is_added_and_used(self, tmp_path: Path, image: SmallImage) -> None:
        settings = settings_at(tmp_path)
        path = image.write(tmp_path / "small.clip")
        path.chmod(0o644)
        first = resolve.resolve(settings, {ANNOTATION_INDEX: str(path)})
        assert first.image is not None and first.explicit
        before = os.stat(first.image.erofs_path)
        second = resolve.resolve(settings, {ANNOTATION_INDEX: str(path)})
        assert second.image is not None
        assert os.stat(second.image.erofs_path) == before

    def test_a_changed_file_is_read_again(self, tmp_path: Path, image: SmallImage) -> None:
        settings = settings_at(tmp_path)
        path = image.write(tmp_path / "small.clip")
        path.chmod(0o644)
        resolve.resolve(settings, {ANNOTATION_INDEX: str(path)})
        other = SmallImage({**FILES, "more": b"x"})
        other.write(path)
        found = resolve.resolve(settings, {ANNOTATION_INDEX: str(path)})
        assert found.image is not None and found.image.manifest_hex == other.manifest_hex

    @pytest.mark.parametrize("path", ["small.clip", "./small.clip", "/nonexistent/small.clip"])
    def test_a_path_that_cannot_be_used(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(BundleError, match=r"small\.clip"):
            resolve.resolve(settings_at(tmp_path), {ANNOTATION_INDEX: path})

    def test_a_file_that_others_may_write(self, tmp_path: Path, image: SmallImage) -> None:
        path = image.write(tmp_path / "small.clip")
        for mode in (0o664, 0o646):
            path.chmod(mode)
            with pytest.raises(BundleError, match="others"):
                resolve.resolve(settings_at(tmp_path), {ANNOTATION_INDEX: str(path)})

    def test_a_symlink_and_a_directory(self, tmp_path: Path, image: SmallImage) -> None:
        path = image.write(tmp_path / "small.clip")
        path.chmod(0o644)
        (tmp_path / "link").symlink_to(path)
        for name in ("link", "."):
            with pytest.raises(BundleError):
                resolve.resolve(settings_at(tmp_path), {ANNOTATION_INDEX: f"{tmp_path}/{name}"})

    def test_a_file_that_is_no_index(self, tmp_path: Path) -> None:
        path = tmp_path / "x.clip"
        path.write_bytes(b"x" * 5000)
        path.chmod(0o644)
        with pytest.raises(IndexFormatError):
            resolve.resolve(settings_at(tmp_path), {ANNOTATION_INDEX: str(path)})
