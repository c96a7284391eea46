"""What a start tells the file of events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.errors import MountFailed
from clip_runc.runtime import noting


def test_starts_and_what_became_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(run_dir=str(tmp_path))
    noting.started(settings, {"container": "a", "mode": "erofs"}, {"mount_ms": "12.3"})
    noting.not_lazy(settings, "b", "host/app:1", "no index")
    monkeypatch.setenv("CLIP_RUNC_RUN_DIR", str(tmp_path))
    noting.failed("c", MountFailed("no EROFS", "modprobe erofs"))
    found = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [one["event"] for one in found] == ["container-started", "not-lazy", "start-failed"]
    assert found[0]["mount_ms"] == 12.3 and found[0]["container"] == "a"
    assert found[1]["why"] == "no index"
    assert found[2]["error"] == "MountFailed" and "modprobe erofs" in found[2]["why"]


def test_settings_that_cannot_be_used_hide_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_RUNC_CONFIG", "/nowhere.toml")
    noting.failed("c", MountFailed("no EROFS"))
