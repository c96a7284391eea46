"""clipd's log in its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_runc.cli import logs


def test_the_last_lines_from_both_files(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("c\nd\n")
    (tmp_path / "log.1").write_bytes(b"a\n\xff\n")
    path = str(tmp_path / "log")
    assert logs.last_lines(path, 1) == ["d"]
    assert logs.last_lines(path, 3) == ["�", "c", "d"]
    assert logs.last_lines(path, 0) == []
    assert logs.last_lines(str(tmp_path / "missing"), 5) == []


def test_what_is_appended_through_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    steps = iter(
        (
            lambda: log.write_text("before\none\n"),
            lambda: log.rename(tmp_path / "log.1"),
            lambda: log.write_text("two\n"),
        )
    )
    monkeypatch.setattr(logs.time, "sleep", lambda _: next(steps)())
    lines = logs.appended(str(log))
    assert [next(lines), next(lines)] == ["one\n", "two\n"]
