"""Which commands of an ordinary user go where."""

from __future__ import annotations

import os
import sys

import pytest

from clip_runc.cli import entering, main
from clip_runc.errors import MountFailed
from clip_runc.fs import namespaces
from clip_runc.linux import user_namespace


def test_every_command_that_has_state_is_in_one_set() -> None:
    """The others read a file or write one, wherever they are."""
    sets = (entering.MOUNTING, entering.WRITING, entering.LOOKING)
    chosen = [name for one in sets for name in one]
    assert len(chosen) == len(set(chosen))
    assert set(main.COMMANDS) - set(chosen) == {
        "cat", "config", "diff", "images", "inspect", "install", "ls", "publish", "push",
        "uninstall", "verify",
    }  # fmt: skip


class World:
    """Whether there is a namespace to enter, whether one can be made, and what was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, lives: bool, poor: str = "") -> None:
        self.done: list[str] = []
        self.lives, self.poor, self.refuses = lives, poor, False
        monkeypatch.setattr(namespaces, "enter", self.enter)
        monkeypatch.setattr(user_namespace, "make", self.make)
        monkeypatch.setattr(os, "execv", self.execute)

    def enter(self) -> bool:
        self.done.append("look")
        return self.lives

    def make(self) -> str:
        self.done.append("make")
        if self.refuses:
            raise MountFailed("a user namespace cannot be made")
        return self.poor

    def execute(self, path: str, argv: list[str]) -> None:
        assert [path, *argv] == [sys.executable, sys.executable, *sys.orig_argv[1:]]
        self.done.append("exec")


@pytest.mark.parametrize(
    ("command", "lives", "done"),
    [
        ("run", False, ["look", "make", "exec"]),
        ("run", True, ["look", "exec"]),
        ("index", False, ["look", "make", "exec"]),
        ("ps", False, ["look"]),
        ("ps", True, ["look", "exec"]),
        ("ls", True, []),
    ],
)
def test_who_goes_where(
    monkeypatch: pytest.MonkeyPatch, command: str, lives: bool, done: list[str]
) -> None:
    world = World(monkeypatch, lives=lives)
    entering.enter_for(command)
    assert world.done == done


def test_who_cannot_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs mounts says so; the rest does what it can."""
    world = World(monkeypatch, lives=False)
    world.refuses = True
    with pytest.raises(MountFailed):
        entering.enter_for("run")
    entering.enter_for("index")
    assert "exec" not in world.done


def test_a_namespace_of_one_id_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(monkeypatch, lives=False, poor="newuidmap is missing")
    entering.enter_for("run")
    assert world.done[-1] == "exec"
    assert "one id, as newuidmap is missing" in capsys.readouterr().err
