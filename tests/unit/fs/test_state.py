"""What a supervisor finds of the one before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_runc.fs.state import Attached, Process, State


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = State(str(tmp_path / "s.json"))
    state.init = b"\0\xff"
    state.images["ab"] = Attached("/i", 3)
    state.slots["k"] = 3
    state.processes["server"] = Process(os.getpid(), device=7)
    state.save()
    found = State.load(str(tmp_path / "s.json"))
    assert (found.init, found.slots) == (b"\0\xff", {"k": 3})
    assert (found.images["ab"].index, found.images["ab"].slot) == ("/i", 3)
    assert found.processes["server"].alive
    assert found.processes["server"].device == 7


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"init": "zz"}', '{"init": 1, "slots": []}'])
def test_a_damaged_file_is_an_empty_state(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    assert State.load(str(path)).init == b""
    assert State.load(str(tmp_path / "none")).images == {}


def test_a_pid_that_was_given_anew_is_another_process() -> None:
    assert not Process(os.getpid(), started=1).alive
    assert not Process(os.getpid(), started=0).alive


def test_a_slot_belongs_to_one_file(tmp_path: Path) -> None:
    state = State(str(tmp_path / "s.json"))
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"x")
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        first = state.slot_for("ab", fds[0])
        assert state.slot_for("ab", fds[0]) == first == 1
        assert state.slot_for("ab", fds[1]) == 2
        assert state.slot_for("cd", fds[0]) == 3
    finally:
        for fd in fds:
            os.close(fd)
