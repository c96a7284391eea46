"""``clipctl metrics`` without clipd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from clip_runc.cli.metrics import command


def test_the_dashboard_is_printed() -> None:
    done = CliRunner().invoke(command, ["--dashboard"], standalone_mode=False)
    assert json.loads(done.output)["title"] == "clip-runc"


def test_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_RUNC_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("CLIP_RUNC_STATE_DIR", str(tmp_path))
    done = CliRunner().invoke(command, [], standalone_mode=False)
    assert "clip_runc_up 0\n" in done.output
