"""``clipctl ps`` without containers, and its columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from clip_runc.cli.ps import amount, command, phases, share


def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_RUNC_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("CLIP_RUNC_STATE_DIR", str(tmp_path))
    done = CliRunner().invoke(command, [], standalone_mode=False)
    words = "id image source mode layers lazy written fetched start bundle"
    assert done.output.split() == words.split()
    assert CliRunner().invoke(command, ["--json"], standalone_mode=False).output == "[]\n"


def test_words() -> None:
    assert (share(None), share(0.126), share(0.0)) == ("-", "13%", "0%")
    assert (amount(None), amount(1500)) == ("-", "1.5 kB")
    assert phases({"mode": "tree"}) == "-"
    assert phases({"mode": "tree", "resolve_ms": "0.1", "mount_ms": "2"}) == (
        "resolve 0.1, mount 2 ms"
    )
