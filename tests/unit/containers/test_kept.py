"""What a checkpointed container wrote: kept by the bundle, for as long as there is that bundle.

Needs root: the extended attributes are trusted ones.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.containers import kept, teardown
from clip_runc.containers import state as states
from clip_runc.containers.state import State
from clip_runc.errors import StoreError
from tests.unit.containers.conftest import state_of

IMAGE = "ab" * 32


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    path.mkdir()
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Where criu put a checkpoint."""
    path = tmp_path / "images"
    path.mkdir()
    (path / "inventory.img").touch()
    return path


def written(settings: Settings, state: State, bundle: Path, text: str) -> Path:
    """The container has a file in its upper directory."""
    state.bundle = str(bundle)
    states.save(settings, state, durable=False)
    upper = Path(states.directory(settings, state.key), "upper")
    upper.mkdir()
    (upper / "file").write_text(text)
    return upper


def places(settings: Settings) -> list[str]:
    directory = Path(settings.container_dir, ".kept")
    return os.listdir(directory) if directory.exists() else []


def test_a_checkpointed_container_leaves_what_it_wrote(
    settings: Settings, state: State, bundle: Path, images: Path
) -> None:
    os.makedirs(settings.lock_dir)
    written(settings, state, bundle, "mine")
    kept.mark(settings, state.key, str(images))
    problems: list[str] = []
    assert teardown.teardown(settings, state.key, problems)
    assert problems == []
    assert not states.exists(settings, state.key)
    found = kept.find(settings, str(bundle), IMAGE)
    assert Path(found, "file").read_text() == "mine"
    assert kept.find(settings, str(bundle), "cd" * 32) == ""
    assert kept.drop_orphans(settings) == []


def test_others_leave_nothing(
    settings: Settings, state: State, bundle: Path, tmp_path: Path
) -> None:
    """One that nobody marked, and one of which criu made no checkpoint."""
    written(settings, state, bundle, "mine")
    kept.keep(settings, state)
    empty = tmp_path / "empty"
    empty.mkdir()
    kept.mark(settings, state.key, str(empty))
    kept.keep(settings, state)
    assert (places(settings), kept.find(settings, str(bundle), IMAGE)) == ([], "")


def test_images_that_were_taken_elsewhere(
    settings: Settings, state: State, bundle: Path, tmp_path: Path
) -> None:
    written(settings, state, bundle, "mine")
    kept.mark(settings, state.key, str(tmp_path / "moved"))
    kept.keep(settings, state)
    assert kept.find(settings, str(bundle), IMAGE)


def test_the_last_one_counts(settings: Settings, state: State, bundle: Path, images: Path) -> None:
    for number, one in enumerate((state, state_of(settings, "c2"))):
        written(settings, one, bundle, f"{number}")
        kept.mark(settings, one.key, str(images))
        kept.keep(settings, one)
    assert len(places(settings)) == 1
    assert Path(kept.find(settings, str(bundle), IMAGE), "file").read_text() == "1"


@pytest.mark.parametrize("again", [False, True])
def test_a_bundle_that_is_gone_takes_it_along(
    settings: Settings, state: State, bundle: Path, images: Path, again: bool
) -> None:
    """Also one that was made anew at the same place."""
    written(settings, state, bundle, "mine")
    kept.mark(settings, state.key, str(images))
    kept.keep(settings, state)
    shutil.rmtree(bundle)
    if again:
        bundle.mkdir()
    assert kept.find(settings, str(bundle), IMAGE) == ""
    assert kept.drop_orphans(settings) == [str(bundle)]
    assert places(settings) == []
    assert kept.drop_orphans(settings) == []


def test_a_bundle_that_is_gone_before_its_container(
    settings: Settings, state: State, bundle: Path, images: Path
) -> None:
    os.makedirs(settings.lock_dir)
    written(settings, state, bundle, "mine")
    kept.mark(settings, state.key, str(images))
    bundle.rmdir()
    problems: list[str] = []
    teardown.teardown(settings, state.key, problems)
    assert problems == []
    kept.drop_orphans(settings)
    assert places(settings) == []


@pytest.mark.parametrize("value", [b"", b"../../etc", b"f" * 23, b"\xff" * 24, b"e" * 24])
def test_an_attribute_that_names_nothing_of_ours(
    settings: Settings, bundle: Path, value: bytes
) -> None:
    os.setxattr(bundle, kept.attribute(), value)
    assert kept.find(settings, str(bundle), IMAGE) == ""


def test_a_copy_is_exact_and_leaves_the_original(tmp_path: Path) -> None:
    """Owners, times, whiteouts and what overlayfs notes in attributes."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    (original / "opaque").mkdir(parents=True)
    os.setxattr(original / "opaque", "trusted.overlay.opaque", b"y")
    os.mknod(original / "gone", 0o020000, 0)
    (original / "file").write_text("text")
    os.chown(original / "file", 70000, 70001)
    os.utime(original / "file", ns=(1, 2))
    os.chmod(original, 0o1751)
    kept.give(str(original), str(copy))
    assert os.getxattr(copy / "opaque", "trusted.overlay.opaque") == b"y"
    status = (copy / "file").stat()
    assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (70000, 70001, 2)
    gone = (copy / "gone").lstat()
    assert (gone.st_mode, gone.st_rdev) == ((original / "gone").lstat().st_mode, 0)
    assert copy.stat().st_mode & 0o7777 == 0o1751
    (copy / "file").write_text("changed")
    assert (original / "file").read_text() == "text"
    with pytest.raises(StoreError, match="cp exited with 1"):
        kept.give(str(tmp_path / "nothing"), str(tmp_path / "other"))
