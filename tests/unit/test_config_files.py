"""Configuration for people."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc import config, config_files
from clip_runc.config import DEFAULTS


def test_every_key_is_documented() -> None:
    found = config_files.documentation()
    assert list(found) == list(DEFAULTS)
    assert all(len(text) > 15 for text in found.values()), "a comment above each key of DEFAULTS"
    assert all(config_files.kind(key) for key in DEFAULTS)


def test_choices_and_limits_are_of_known_keys() -> None:
    assert {*config.CHOICES, *config.LIMITS} <= set(DEFAULTS)
    for key, value in DEFAULTS.items():
        assert config.check(key, value) == value


def test_all_problems_of_a_file() -> None:
    values, problems = config_files.examine("f", b'nosuid = 1\nruntime = "crun"\ncolour = 3\n')
    assert values == {"runtime": "crun"}
    assert [problem.message[:4] for problem in problems] == ["f:1:", "f:3:"]


@given(st.binary(max_size=40))
def test_any_bytes_are_values_or_problems(data: bytes) -> None:
    values, problems = config_files.examine("f", data)
    assert set(values) <= set(DEFAULTS)
    assert all(problem.message.startswith("f:") for problem in problems)


@pytest.mark.parametrize(
    ("text", "line"),
    [("x = 1", 1), ("#x\n'x'=1", 2), ('y = 1\n"x" = 1', 2), ("\n[x]", 2), ("\n\n[x.y]", 3)],
)
def test_lines(text: str, line: int) -> None:
    assert config_files.line_of(text, "x") == line


def test_where_values_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.toml"
    own.write_text("\nread_timeout = 5\n")
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(own))
    monkeypatch.setenv("CLIP_RUNC_NOSUID", "false")
    found = config_files.origins()
    assert found["read_timeout"] == (5, f"{own}:2")
    assert found["nosuid"] == (False, "environment CLIP_RUNC_NOSUID")
    assert found["log_level"] == ("info", "default")
    assert [name for name, _ in config_files.check_all()] == [str(own), "environment"]
