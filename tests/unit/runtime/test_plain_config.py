from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.config import load
from clip_runc.errors import ConfigError
from clip_runc.runtime.plain_config import load_settings, parse


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# nothing\n\n", {}),
        ('runtime = "crun"', {"runtime": "crun"}),
        ('runtime="crun" # comment "x"\n', {"runtime": "crun"}),
        ("nosuid = false\nread_timeout=5 # s\n", {"nosuid": False, "read_timeout": 5}),
        ('plain_http = ["a:1", "b",]\n', {"plain_http": ["a:1", "b"]}),
        ("plain_http = [ ] # none", {"plain_http": []}),
    ],
)
def test_plain_lines(text: str, values: dict[str, object]) -> None:
    assert parse(text.encode()) == values
    assert tomllib.loads(text) == values


@pytest.mark.parametrize(
    "text",
    [
        'runtime = "a\\tb"',
        "runtime = 'crun'",
        '"runtime" = "crun"',
        'runtime = """crun"""',
        '[table]\nruntime = "crun"',
        'a.b = "c"',
        "x = 1.5",
        "x = -1",
        "x = 01",
        'x = ["a"\n]',
        'x = "a" "b"',
        "x = 1\nx = 2",
        "x",
        'x = "a\x01"',
        "x = 1\r\n",
        "x = 'a",
    ],
)
def test_others_are_left_to_tomllib(text: str) -> None:
    assert parse(text.encode()) is None


def test_bytes_that_are_no_text() -> None:
    assert parse(b'x = "\xff"') is None


PIECES = [
    "a",
    "b_c",
    " ",
    "=",
    '"',
    "'",
    "#",
    "[",
    "]",
    ",",
    "\n",
    "1",
    "0",
    "true",
    "\\",
    "\t",
    "é",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=12))
def test_what_it_reads_is_what_tomllib_reads(text: str) -> None:
    values = parse(text.encode("utf-8", "surrogatepass"))
    if values is not None:
        assert values == tomllib.loads(text)


def test_settings_are_those_of_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(path))
    for text in ('run_dir = "/x"\nnosuid = false\n', "run_dir = '/x'\nnosuid = false\n"):
        path.write_text(text)
        assert vars(load_settings()) == vars(load())
        assert load_settings().run_dir == "/x"


@pytest.mark.parametrize("text", ['colour = "red"', 'run_dir = "here"', "nosuid = 1", "="])
def test_errors_are_those_of_config(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(path))
    with pytest.raises(ConfigError, match=str(path)):
        load_settings()


def test_a_named_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_settings()
