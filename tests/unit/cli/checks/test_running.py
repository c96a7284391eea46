"""clipd as it says it is."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from clip_runc.cli.checks import running
from clip_runc.cli.checks.finding import FAIL, OK, WARN
from clip_runc.config import Settings


@pytest.mark.parametrize(
    ("state", "restarts", "level"),
    [("serving", 0, OK), ("serving", 99, WARN), ("starting", 0, WARN), ("dead", 1, FAIL)],
)
def test_states(state: str, restarts: int, level: int) -> None:
    status = {
        "supervisor": {"pid": 1},
        "server": {"pid": 2, "state": state, "restarts": restarts},
    }
    assert running.judge(status, "").level == level


def test_a_clipd_that_does_not_run_is_all_right(tmp_path: Path) -> None:
    found = running.check(Settings(run_dir=str(tmp_path)))
    assert [one.level for one in found] == [OK]


def test_a_socket_that_systemd_listens_to(tmp_path: Path) -> None:
    settings = Settings(run_dir=str(tmp_path))
    Path(settings.control_dir).mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(settings.socket)
        assert running.check(settings)[0].level == FAIL
        sock.listen()
        found = running.check(settings)[0]
        assert (found.level, found.subject) == (OK, "clipd")
        assert "systemd listens" in found.text
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.accept()


def test_a_socket_that_nobody_listens_to(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control/clipd.sock").touch()
    found = running.check(Settings(run_dir=str(tmp_path)))[0]
    assert found.level == FAIL
    assert "clipd.log" in found.remedy
