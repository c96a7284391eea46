"""Changes to files."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_runc.cli.setup.changes import MARK, Change, own_file, removals
from clip_runc.errors import ConfigError


def test_a_change_is_shown_and_made(tmp_path: Path) -> None:
    change = Change("/etc/a", "new\n", 0o600, str(tmp_path))
    assert change.diff() == f"--- /dev/null\n+++ {tmp_path}/etc/a\n@@ -0,0 +1 @@\n+new\n"
    change.make()
    assert not change.needed()
    assert (tmp_path / "etc/a").stat().st_mode & 0o777 == 0o600
    gone = change._replace(text=None)
    assert "-new" in gone.diff()
    gone.make()
    assert not gone.needed()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    Change("/link", "new", root=str(tmp_path)).make()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_only_ours_are_replaced_and_removed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("x")
    (tmp_path / "ours").write_text(MARK)
    with pytest.raises(ConfigError, match="was not written by"):
        own_file("/theirs", "y", str(tmp_path))
    assert own_file("/ours", "y", str(tmp_path)).needed()
    found = removals(["/theirs", "/ours", "/none"], str(tmp_path))
    assert [change.path for change in found] == ["/ours"]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="binary"):
        own_file("/binary", "y", str(tmp_path))
