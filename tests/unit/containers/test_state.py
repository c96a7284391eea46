from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.config import Settings
from clip_runc.containers import state as states
from clip_runc.containers.state import State


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_saved_is_loaded(settings: Settings, state: State, durable: bool) -> None:
    state.creator, state.created, state.boot = (17, 4711), 1_700_000_000, "b"
    state.original_root = {"path": "rootfs", "readonly": True}
    state.hooks = {"poststop": [{"path": "/x", "args": ["x"]}]}
    states.save(settings, state, durable=durable)
    found = states.load(settings, state.key)
    assert found is not None
    assert found.as_dict() == state.as_dict()
    directory = Path(states.directory(settings, state.key))
    assert os.listdir(directory) == ["state.json"]
    assert (directory / "state.json").stat().st_mode & 0o777 == 0o600


def test_no_state(settings: Settings) -> None:
    assert states.load(settings, "c1-0123456789abcdef01234567") is None
    assert states.list_states(settings) == []


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"key": "other"},
        {"image": "../../etc"},
        {"created": "now"},
        {"creator": [1]},
        {"creator": ["1", 2]},
        {"creator": [True, 2]},
        {"hooks": []},
        {"hooks": {"poststop": {}}},
        {"bundle": None},
    ],
)
def test_a_state_that_makes_no_sense_counts_as_none(
    settings: Settings, state: State, change: dict[str, Any]
) -> None:
    path = Path(states.directory(settings, state.key), "state.json")
    path.write_text(json.dumps({**state.as_dict(), "creator": [1, 2]}))
    assert states.load(settings, state.key) is not None
    path.write_text(json.dumps({**state.as_dict(), "creator": [1, 2], **change}))
    assert states.load(settings, state.key) is None
    assert states.list_states(settings) == []


@given(data=st.binary(max_size=200))
def test_rubbish_counts_as_none(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    directory = tmp_path_factory.getbasetemp() / "rubbish"
    settings = Settings(state_dir=str(directory))
    key = "c1-0123456789abcdef01234567"
    os.makedirs(states.directory(settings, key), exist_ok=True)
    Path(states.directory(settings, key), "state.json").write_bytes(data)
    assert states.load(settings, key) is None


def test_a_container_lives_while_its_runtime_knows_it(state: State, tmp_path: Path) -> None:
    state.root, state.boot = str(tmp_path), "now"
    assert not states.in_use(state, "now")
    (tmp_path / "c1").mkdir()
    (tmp_path / "c1/state.json").touch()
    assert states.in_use(state, "now")
    assert not states.in_use(state, "another boot")


def test_a_container_lives_while_the_process_that_makes_it_does(state: State) -> None:
    state.root, state.boot = "/nonexistent", "now"
    with subprocess.Popen(["sleep", "60"]) as process:
        state.creator = (process.pid, states.start_time(process.pid))
        assert state.creator[1] > 0
        assert states.in_use(state, "now")
        state.creator = (process.pid, state.creator[1] + 1)  # the number was given anew
        assert not states.in_use(state, "now")
        state.creator = (process.pid, states.start_time(process.pid))
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not states.in_use(state, "now"), "a zombie makes no container"


def test_a_mount_of_the_api_lives_until_reboot(state: State) -> None:
    state.root, state.boot = "", "now"
    assert states.in_use(state, "now")
    assert not states.in_use(state, "another boot")


def test_half_made_containers_are_none(tmp_path: Path) -> None:
    """One rule for gc, delete and the watcher: what a killed runtime left is no container."""
    root = tmp_path / "root"
    assert not states.known_to_runc("", "c1")
    assert not states.known_to_runc(str(root), "c1")
    (root / "c1").mkdir(parents=True)
    for name in ("exec.fifo", "config.json", "state-123456"):
        (root / "c1" / name).touch()
        assert not states.known_to_runc(str(root), "c1")
    for name in ("state.json", "status", "what another runtime has"):
        (root / "c1" / name).touch()
        assert states.known_to_runc(str(root), "c1")
        (root / "c1" / name).unlink()
    (root / "box_sandbox:c1.state").touch()
    assert states.known_to_runc(str(root), "c1")
