"""``clipctl ps`` without containers, and its columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from clip_runc.cli.ps import amount, command, share


def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_RUNC_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("CLIP_RUNC_STATE_DIR", str(tmp_path))
    done = CliRunner().invoke(command, [], standalone_mode=False)
    assert done.output.split() == ["id", "image", "mode", "lazy", "written", "fetched", "bundle"]
    assert CliRunner().invoke(command, ["--json"], standalone_mode=False).output == "[]\n"


def test_words() -> None:
    assert (share(None), share(0.126), share(0.0)) == ("-", "13%", "0%")
    assert (amount(None), amount(1500)) == ("-", "1.5 kB")
