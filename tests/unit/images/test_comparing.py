"""Comparing an index that nobody vouches for; tests/integration/test_trust.py runs the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.errors import NotFound
from clip_runc.images import local
from clip_runc.images.artifact import push_index
from clip_runc.images.comparing import adopt
from clip_runc.images.make import index_image
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.fake import FakeRegistry
from tests.unit.images.artifacts import image_at
from tests.unit.images.registry_images import add, local_windows, rewrite, tar_of

NOISE = os.urandom(3 << 20)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry(referrers=True) as registry:
        yield registry


@pytest.fixture
def reference(fake: FakeRegistry) -> str:
    return add(fake, tar_of({"noise": NOISE}), tar_of({"hello": b"world"}))


def settings_in(directory: Path) -> Settings:
    return Settings(
        state_dir=str(directory / "state"), run_dir=str(directory / "run"), trusted_registries=()
    )


def made(directory: Path, reference: str, mib: int) -> Path:
    """An index that somebody else makes."""
    path = directory / "theirs.clip"
    settings = settings_in(directory / "elsewhere")
    index_image(settings, reference, str(path), checkpoint_mib=mib, store=False)
    return path


@pytest.mark.parametrize("mib", [1, 2])
def test_one_that_tells_the_truth_is_used(tmp_path: Path, reference: str, mib: int) -> None:
    settings = settings_in(tmp_path)
    path = made(tmp_path, reference, mib)
    push_index(settings, image_at(settings, reference), str(path))
    assert adopt(settings, reference) == []
    found = local.find(settings, reference)
    assert found is not None
    assert Path(found.index_path).read_bytes() == path.read_bytes()
    assert adopt(settings, reference) == [], "it is known by now"


def test_one_that_lies_is_not(tmp_path: Path, reference: str) -> None:
    settings = settings_in(tmp_path)
    path = made(tmp_path, reference, 2)
    truth = path.read_bytes()
    with ClipFile.open(str(path)) as clip:
        layer, upper = (local_windows(one) for one in clip.layers)
    chunks = (replace(layer.chunks[0], hash=bytes(32)), *layer.chunks[1:])
    rewrite(path, layers=[(replace(layer, chunks=chunks), b""), (upper, b"")])
    push_index(settings, image_at(settings, reference), str(path))
    assert any("layer 1" in line for line in adopt(settings, reference))
    found = local.find(settings, reference)
    assert found is not None
    assert Path(found.index_path).read_bytes() == truth


def test_where_there_is_none(tmp_path: Path, reference: str) -> None:
    settings = settings_in(tmp_path)
    with pytest.raises(NotFound, match="no index beside"):
        adopt(settings, reference)
    assert local.find(settings, reference) is None
