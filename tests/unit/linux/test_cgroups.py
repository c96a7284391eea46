"""How far up an ordinary user may go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_runc.linux import cgroups


@pytest.mark.parametrize(("writable", "top"), [("user", "user"), ("user/a", "user/a"), ("", "")])
def test_the_highest_that_was_delegated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: str, top: str
) -> None:
    (tmp_path / "user/a/b").mkdir(parents=True)

    def access(path: str, mode: int) -> bool:
        inside = os.path.relpath(path, tmp_path)
        return bool(writable) and inside.startswith(writable)

    monkeypatch.setattr(os, "access", access)
    found = cgroups.delegated(str(tmp_path), "/user/a/b")
    assert found == (f"{tmp_path}/{top}" if top else "")
