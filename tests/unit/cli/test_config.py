"""``clipctl config``."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clip_runc.cli import config as command
from clip_runc.config import DEFAULTS
from clip_runc.errors import ConfigError


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own.toml"
    path.write_text('runtime = "crun"\n')
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(path))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command.command, arguments, standalone_mode=False)


def test_what_is_shown_is_a_file_again(own: Path) -> None:
    out = run("show").output
    values = tomllib.loads(out)
    assert {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    } == {**DEFAULTS, "runtime": "crun"}
    assert f'runtime = "crun"  # {own}:1\n' in out
    assert json.loads(run("show", "--json").output)["runtime"]["place"] == f"{own}:1"


def test_check(own: Path) -> None:
    done = run("check")
    assert (done.return_value, done.output) == (0, f"✓ {own}\n")
    own.write_text('\nlog_format = "xml"\n')
    done = run("check")
    assert done.return_value == 1
    assert done.output == f"✗ {own}:2: log_format = 'xml'\n    one of text, json\n"


@pytest.mark.usefixtures("own")
def test_explain() -> None:
    out = run("explain", "runtime").output
    assert 'now       "crun"' in out
    assert "CLIP_RUNC_RUNTIME" in out
    out = run("explain").output
    assert all(f"{key}: " in out for key in DEFAULTS)
    assert isinstance(run("explain", "colour").exception, ConfigError)
