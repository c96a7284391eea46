from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.containers.state import start_time
from clip_runc.runtime.init_process import read_init

HOOK = "/usr/lib/clip-runc/clip-runc-poststop"
OTHER = {"path": "/other", "args": None, "env": None, "dir": "", "timeout": None}


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    yield process
    process.kill()
    process.wait()


def write_state(root: Path, pid: int, started: int, **changes: object) -> None:
    """As libcontainer writes it: members in this order, no spaces."""
    config: dict[str, object] = {
        "labels": ['a="init_process_pid":1,'],
        "namespaces": [{"type": "NEWNS", "path": ""}, {"type": "NEWPID", "path": ""}],
        "hooks": {"createRuntime": None, "poststop": [{**OTHER, "path": HOOK}]},
        **changes,
    }
    state = {"id": "c1", "init_process_pid": pid, "init_process_start": started, "config": config}
    (root / "c1").mkdir(exist_ok=True)
    (root / "c1/state.json").write_text(json.dumps(state, separators=(",", ":")))


def test_a_process_that_lives_is_killed(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    write_state(tmp_path, sleeper.pid, start_time(sleeper.pid))
    init = read_init(str(tmp_path), "c1", HOOK)
    assert init is not None
    assert not init.has_ended()
    assert init.kill()
    assert init.has_ended()
    assert sleeper.wait() == -signal.SIGKILL
    assert init.kill(), "that of a process which is gone"


def test_one_that_has_its_number_now_is_another(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    write_state(tmp_path, sleeper.pid, start_time(sleeper.pid) - 1)
    init = read_init(str(tmp_path), "c1", HOOK)
    assert init is not None
    assert init.has_ended()
    assert init.kill()
    assert sleeper.poll() is None


def test_one_that_does_not_die_is_given_up(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(tmp_path, sleeper.pid, start_time(sleeper.pid))
    monkeypatch.setattr("_signal.pidfd_send_signal", lambda *_: None)
    init = read_init(str(tmp_path), "c1", HOOK)
    assert init is not None
    assert not init.kill()


@pytest.mark.parametrize(
    "changes",
    [
        {"namespaces": [{"type": "NEWPID", "path": "/proc/1/ns/pid"}]},
        {"namespaces": [{"type": "NEWNS", "path": ""}]},
        {"namespaces": None},
        {"hooks": {"poststop": [OTHER, {**OTHER, "path": HOOK}]}},
        {"hooks": {"poststop": None}},
        {"labels": ['"poststop":[{"path":"' + HOOK + '"'], "hooks": None},
    ],
)
def test_where_somebody_else_may_still_look(tmp_path: Path, changes: dict[str, object]) -> None:
    write_state(tmp_path, os.getpid(), start_time(os.getpid()), **changes)
    assert read_init(str(tmp_path), "c1", HOOK) is None


@pytest.mark.parametrize("numbers", [(0, 0), (-1, 5), (5, 10**25)])
def test_numbers_that_are_none(tmp_path: Path, numbers: tuple[int, int]) -> None:
    write_state(tmp_path, *numbers)
    assert read_init(str(tmp_path), "c1", HOOK) is None


def test_a_state_of_another_runtime(tmp_path: Path) -> None:
    assert read_init(str(tmp_path), "c1", HOOK) is None
    (tmp_path / "c1").mkdir()
    (tmp_path / "c1/status").write_text(json.dumps({"pid": os.getpid()}))
    assert read_init(str(tmp_path), "c1", HOOK) is None
