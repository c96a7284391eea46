"""Settings from files, drop-ins and the environment; the hot path reads the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_runc import config, personal
from clip_runc.config import DEFAULTS, Settings, load
from clip_runc.errors import ConfigError
from clip_runc.runtime.plain_config import load_settings


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in the place of /etc/clip-runc, and no variables."""
    for name in list(os.environ):
        if name.startswith("CLIP_RUNC_"):
            monkeypatch.delenv(name)
    (tmp_path / "config.d").mkdir()
    monkeypatch.setattr(config, "CONFIG_FILE", str(tmp_path / "config.toml"))
    monkeypatch.setattr(config, "CONFIG_DIR", str(tmp_path / "config.d"))
    return tmp_path


def both() -> Settings:
    """What both readers make of it."""
    one, other = load(), load_settings()
    assert vars(one) == vars(other)
    return one


def error() -> str:
    """What both readers say about it."""
    with pytest.raises(ConfigError) as one:
        load()
    with pytest.raises(ConfigError) as other:
        load_settings()
    assert str(one.value) == str(other.value)
    return str(one.value)


def test_defaults(place: Path) -> None:
    assert vars(both()) == DEFAULTS
    (place / "config.d").rmdir()
    assert vars(both()) == DEFAULTS


@pytest.mark.parametrize("quote", ['"', "'"])
def test_drop_ins_in_the_order_of_names(place: Path, quote: str) -> None:
    (place / "config.toml").write_text('runtime = "crun"\nread_timeout = 1\nimage_linger = 1\n')
    (place / "config.d/20-b.toml").write_text("read_timeout = 3\n")
    (place / "config.d/10-a.toml").write_text(
        f"read_timeout = 2\nrun_dir = {quote}/r{quote}\nimage_linger = 2\n"
    )
    (place / "config.d/30-c.toml.bak").write_text("read_timeout = 4\n")
    (place / "config.d/.hidden.toml").write_text("read_timeout = 5\n")
    found = both()
    assert (found.runtime, found.read_timeout, found.image_linger) == ("crun", 3, 2)
    assert found.run_dir == "/r"


def test_drop_ins_without_a_main_file(place: Path) -> None:
    (place / "config.d/a.toml").write_text("nosuid = false\n")
    assert both().nosuid is False


def test_a_named_file_stands_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "config.d/a.toml").write_text("nosuid = false\n")
    (place / "own.toml").write_text("read_timeout = 7\n")
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(place / "own.toml"))
    found = both()
    assert (found.nosuid, found.read_timeout) == (True, 7)
    (place / "own.toml").unlink()
    assert "no such configuration file" in error()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("STATE_DIR", "/x", "/x"),
        ("NOSUID", "false", False),
        ("NOSUID", "1", True),
        ("READ_TIMEOUT", "9", 9),
        ("PLAIN_HTTP", "a:1, b,", ("a:1", "b")),
        ("PLAIN_HTTP", "", ()),
    ],
)
def test_the_environment_overrides(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    (place / "config.toml").write_text('state_dir = "/file"\nread_timeout = 1\n')
    monkeypatch.setenv(f"CLIP_RUNC_{name}", text)
    assert getattr(both(), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("NOSUID", "yes"), ("READ_TIMEOUT", "-1"), ("LAYER_MODE", "fast"), ("RUN_DIR", "here")],
)
def test_a_variable_that_cannot_be_used_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"CLIP_RUNC_{name}", text)
    assert error().startswith(f"environment: CLIP_RUNC_{name}: {name.lower()} = ")


def test_other_variables_are_none_of_ours(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_RUNC_DEBUG", "1")
    monkeypatch.setenv("CLIP_RUNC_PYTHON", "/usr/bin/python3")
    assert vars(both()) == DEFAULTS


def test_the_caller_of_a_set_uid_program_has_no_say(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "own.toml").write_text('run_dir = "/mine"')
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(place / "own.toml"))
    monkeypatch.setenv("CLIP_RUNC_STATE_DIR", "/mine")
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, "/mine")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    found = vars(both())
    assert not any("/mine" in str(value) for value in found.values())
    assert {key for key, value in found.items() if value != DEFAULTS[key]} == set(personal.OF_ROOT)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('# one\n\ncolour = "red"\n', 3, "unknown setting"),
        ('nosuid = true\nrun_dir = "here"', 2, "not an absolute path"),
        ("read_timeout = 0", 1, "out of range"),
        ("\nfetch_threads = 65", 2, "out of range"),
        ('\n\n[server]\nlog_level = "info"', 3, "unknown setting"),
        ('a.b = "c"', 1, "unknown setting"),
        ("nosuid = 1", 1, "not a value of type bool"),
        ('log_level = "loud"', 1, "one of"),
        ('plain_http = [\n "a",\n 5,\n]', 1, "not a list of texts"),
    ],
)
def test_errors_have_the_line(place: Path, text: str, line: int, words: str) -> None:
    path = place / "config.d/a.toml"
    path.write_text(text)
    found = error()
    assert found.startswith(f"{path}:{line}: ")
    assert words.replace("texts", "strings") in found


def test_what_is_no_toml_is_told_with_its_place(place: Path) -> None:
    path = place / "config.toml"
    path.write_text("nosuid = true\nx = = 1\n")
    assert error().startswith(f"{path}: ")
    assert "line 2" in error()


def test_a_directory_that_cannot_be_listed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CONFIG_DIR", str(place / "config.toml"))
    (place / "config.toml").touch()
    assert "config.toml: Not a directory" in error()


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'colour'"):
        Settings(colour="red")
