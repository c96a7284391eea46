"""Killed in the middle of a write, what is left goes; what is in use or whole stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.containers.gc import gc
from clip_runc.images import local
from clip_runc.images.strays import new_index, remove_strays
from clip_runc.linux import files
from tests.unit.images.small_clip import FILES, SmallImage

REFERENCE = "registry.example/team/app:1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


def paths(settings: Settings) -> set[str]:
    """All files of the index store but its lock."""
    top = Path(settings.state_dir)
    return {str(path) for path in top.rglob("*") if path.is_file() and path.name != ".lock"}


def dead_pid() -> int:
    """Of a process that has been."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_what_killed_writers_left(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = SmallImage(FILES).write(tmp_path / "small.clip")
    local.add(settings, str(index), [REFERENCE])
    whole = paths(settings)
    # as SIGKILL would: neither the rename nor the removal of the temporary file happens
    monkeypatch.setattr(files.os, "rename", _killed)
    monkeypatch.setattr(files.os, "unlink", _killed)
    for directory in (settings.index_dir, settings.reference_dir):
        with pytest.raises(KeyboardInterrupt):
            files.write_atomic(f"{directory}/some.json", b"{}")
    monkeypatch.undo()
    Path(settings.index_dir, ".new.clip").write_bytes(b"half")
    Path(settings.layer_index_dir).mkdir()
    Path(settings.layer_index_dir, f".name.{dead_pid()}").write_bytes(b"half")
    assert len(paths(settings) - whole) == 4
    mine = Path(settings.layer_index_dir, f".name.{os.getpid()}")
    mine.write_bytes(b"being written")
    said = gc(settings, alive=lambda _: True)
    assert len([line for line in said if line.startswith("unfinished file ")]) == 4
    assert paths(settings) == whole | {str(mine)}
    assert local.find(settings, REFERENCE) is not None
    assert remove_strays(settings) == []


def test_an_index_that_is_being_made_is_left_alone(settings: Settings) -> None:
    """Also where its maker is dead and a child of that still writes."""
    Path(settings.index_dir).mkdir(parents=True)
    fd, path = new_index(settings.index_dir)
    os.utime(path, (1, 1))
    child = subprocess.Popen(["sleep", "100"], pass_fds=[fd])
    os.close(fd)
    assert remove_strays(settings) == []
    child.kill()
    child.wait()
    assert remove_strays(settings) == [path]
    fd, path = new_index(settings.index_dir)
    os.close(fd)
    assert remove_strays(settings) == [], "it may have been made this moment"


def test_an_index_that_is_being_added_is_left_alone(settings: Settings) -> None:
    Path(settings.index_dir).mkdir(parents=True)
    half = Path(settings.index_dir, ".new.clip")
    half.write_bytes(b"half")
    with files.lock(f"{settings.index_dir}/.lock"):
        assert remove_strays(settings) == []
    assert remove_strays(settings) == [str(half)]


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
