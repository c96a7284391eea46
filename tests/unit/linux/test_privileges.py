"""What is left of root after giving it up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clip_runc.linux.unprivileged import run_unprivileged
from tests.integration.prerequisites import need

UID = 61217


def _self() -> dict[str, object]:
    with open("/proc/self/status", encoding="ascii") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {"uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), **lines}


def test_nothing_of_root_is_left() -> None:
    found = run_unprivileged(UID, _self)
    assert isinstance(found, dict)
    if os.geteuid() == 0:
        assert found["uids"] == found["gids"] == [UID] * 3
        assert found["groups"] == []
        assert int(found["CapBnd"], 16) == 0
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(found[name], 16) == 0
    assert found["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    ("call", "dumped", "limit"),
    [("", True, 1 << 20), ("refuse_dumps(children=False)", False, 1 << 20),
     ("refuse_dumps(children=True)", False, 0)],
)  # fmt: skip
def test_no_cores_of_us_and_of_children_where_asked_for(
    tmp_path: Path, call: str, dumped: bool, limit: int
) -> None:
    """Judged by what the kernel says of a process that aborts, and of one that it starts."""
    need("core files")
    script = f"""
import os, resource, sys
from clip_runc.linux.privileges import refuse_dumps
resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
{call}
if not os.fork():
    os.execv(sys.executable, [sys.executable, "-c",
        "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0])"])
os.wait()
os.abort()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    assert child.stdout
    said = child.stdout.read()
    child.stdout.close()
    _, status = os.waitpid(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == -signal.SIGABRT
    assert os.WCOREDUMP(status) is dumped
    assert int(said) == limit


def _open_fds() -> list[int]:
    return [fd for fd in range(3, 64) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_descriptors_are_closed_but_those_to_keep() -> None:
    kept, other = os.pipe()
    try:
        found = run_unprivileged(UID, _open_fds, keep_fds=[kept])
    finally:
        os.close(kept)
        os.close(other)
    assert isinstance(found, list)
    assert kept in found
    assert other not in found
    assert len(found) == 2  # the pipe of the result is the other one
