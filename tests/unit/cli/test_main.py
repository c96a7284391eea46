"""clipctl's frame: commands, messages, exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from clip_runc.cli import main as cli
from clip_runc.errors import ClipError


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of ``clipctl ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", ["clipctl", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_is_there_and_explains_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, name, "--help") == 0
    out = capsys.readouterr().out
    assert f"clipctl {name}" in out or "Usage" in out
    assert "Options" in out


def test_every_module_of_a_command_is_listed() -> None:
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    frame = {"__init__", "main", "console", "entering", "opening"}
    assert modules - frame == set(cli.COMMANDS)


def test_help_lists_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.COMMANDS)


def test_a_wrong_call_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "nonsense") == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ClipError("it broke", "mend it"), 1, "clipctl: it broke\n  mend it\n"),
        (FileNotFoundError(2, "No such file", "/x"), 1, "clipctl: /x: No such file\n"),
        (click.exceptions.Abort(), 130, ""),
        (
            ZeroDivisionError("oops"),
            70,
            "clipctl: internal error: ZeroDivisionError: oops\n"
            "  set CLIP_RUNC_DEBUG=1 for the traceback, and report it\n",
        ),
    ],
)
def test_errors_are_one_message(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.clipctl, "main", fail)
    assert run(monkeypatch, "status") == code
    assert capsys.readouterr().err == text


def test_a_configuration_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('layer_mode = "fast"\n')
    monkeypatch.delenv("CLIP_RUNC_CONFIG", raising=False)
    monkeypatch.setenv("CLIP_RUNC_CONFIG", "")
    assert run(monkeypatch, "--config", str(config), "images") == 1
    error = capsys.readouterr().err
    assert "layer_mode" in error
    assert str(config) in error
