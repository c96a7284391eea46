"""Which commands of an ordinary user go where."""

from __future__ import annotations

import os
import sys

import pytest

from clip_runc.cli import entering, main
from clip_runc.errors import MountFailed
from clip_runc.fs import namespaces


def test_every_command_that_has_state_is_in_one_set() -> None:
    """The others read a file or write one, wherever they are."""
    sets = (entering.MOUNTING, entering.WRITING, entering.LOOKING)
    chosen = [name for one in sets for name in one]
    assert len(chosen) == len(set(chosen))
    assert set(main.COMMANDS) - set(chosen) == {
        "cat", "config", "diff", "images", "inspect", "install", "ls", "publish", "push",
        "uninstall", "verify",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "made"), [("run", True), ("gc", True), ("ps", False), ("ls", None)]
)
def test_who_makes_a_namespace(
    monkeypatch: pytest.MonkeyPatch, command: str, made: bool | None
) -> None:
    asked: list[bool] = []
    executed: list[list[str]] = []

    def enter(*, make: bool) -> bool:
        asked.append(make)
        return make

    monkeypatch.setattr(namespaces, "enter", enter)
    monkeypatch.setattr(os, "execv", lambda path, argv: executed.append([path, *argv]))
    entering.enter_for(command)
    assert asked == ([] if made is None else [made])
    again = [sys.executable, sys.executable, *sys.orig_argv[1:]]
    assert executed == ([again] if made else [])


def test_who_cannot_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs mounts says so; the rest does what it can."""

    def refuse(*, make: bool) -> bool:
        raise MountFailed("a user namespace cannot be made")

    monkeypatch.setattr(namespaces, "enter", refuse)
    with pytest.raises(MountFailed):
        entering.enter_for("run")
    entering.enter_for("index")
