"""What was not found is not asked for again, for a while."""

from __future__ import annotations

import os
import time
from pathlib import Path

from clip_runc.config import Settings
from clip_runc.images import absent


def settings(tmp_path: Path, seconds: int = 60) -> Settings:
    return Settings(
        state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"), pull_retry=seconds
    )


def test_noted_until_it_is_old(tmp_path: Path) -> None:
    here = settings(tmp_path)
    assert absent.seconds_ago(here, "r.example/a:1") is None
    absent.note(here, "r.example/a:1")
    assert absent.seconds_ago(here, "r.example/a:1") in (0, 1)
    assert absent.seconds_ago(here, "r.example/a:2") is None
    [path] = (tmp_path / "run/absent").iterdir()
    for age in (61, -60):  # a clock that was set back must not mean for ever
        os.utime(path, (time.time() - age,) * 2)
        assert absent.seconds_ago(here, "r.example/a:1") is None
    absent.note(here, "r.example/a:1")
    assert absent.seconds_ago(here, "r.example/a:1") in (0, 1)


def test_never_where_it_is_to_be_asked_every_time(tmp_path: Path) -> None:
    absent.note(settings(tmp_path, 0), "r.example/a:1")
    assert not (tmp_path / "run/absent").exists()


def test_the_directory_does_not_grow_for_ever(tmp_path: Path) -> None:
    here = settings(tmp_path)
    for number in range(1030):
        absent.note(here, f"r.example/a:{number}")
    assert len(list((tmp_path / "run/absent").iterdir())) < 1024
