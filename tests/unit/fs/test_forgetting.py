"""What the supervisor believes of the server's word that layers are quiet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.fs import forgetting
from clip_runc.fs.forgetting import Forgetting

NAME = "ab" * 32


class Loop:
    """Children that end when they are told to."""

    def __init__(self) -> None:
        self.ends: list[Callable[[int, bytes], None]] = []

    def output(self, pid: int, pipe: int, done: Callable[[int, bytes], None]) -> None:
        self.ends.append(done)


def test_only_names_of_layers_are_opened_and_by_one_child_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def child(work: Callable[[], bytes]) -> tuple[int, int]:
        work()
        return 1, 2

    monkeypatch.setattr(forgetting, "in_child", child)
    monkeypatch.setattr(forgetting, "forget", opened.append)
    loop: Any = Loop()
    told = Forgetting(loop, Settings(run_dir=str(tmp_path)))
    for message in ({}, {"layers": "x"}, {"layers": ["../../etc/passwd", 7, NAME + "/x"]}):
        told.quiet(message)
    assert not loop.ends
    told.quiet({"layers": [NAME, "/etc/passwd"]})
    told.quiet({"layers": [NAME]})
    assert opened == [f"{tmp_path}/fs/layers/{NAME}"]
    loop.ends[0](0, b"")
    told.quiet({"layers": [NAME]})
    assert len(opened) == 2


def test_a_file_that_is_gone_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x" * 4096)
    forgetting.forget(str(tmp_path / "there"))
    forgetting.forget(str(tmp_path / "nothing"))
