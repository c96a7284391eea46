"""The watcher, forked off processes of ours that then end as we like."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[3]
PROGRAM = """
import os, sys, time
sys.path.insert(0, {home!r})
from clip_runc.runtime.watcher import watch
happened, finished, pid = {happened!r}, {finished!r}, {pid!r}

def finish():
    fds = sorted(int(n) for n in os.listdir("/proc/self/fd"))
    stdio = [os.readlink(f"/proc/self/fd/{{n}}") for n in (0, 1, 2)]
    with open(finished + ".new", "w") as file:
        file.write(repr((fds[:4], stdio, os.getcwd(), os.getsid(0) == os.getpid())))
    os.rename(finished + ".new", finished)

watch(lambda: os.path.exists(happened), finish, follow={follow})
print(len(open("/proc/self/task/%d/children" % os.getpid()).read().split()), flush=True)
sys.stdin.read()
"""


def start(tmp_path: Path, follow: bool) -> subprocess.Popen[bytes]:
    text = PROGRAM.format(
        home=str(HOME), happened=str(tmp_path / "happened"), finished=str(tmp_path / "finished"),
        pid=os.getpid(), follow=follow,
    )  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def eventually(path: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("ending", ["exit", "kill"])
def test_it_finishes_when_the_process_ends_and_holds_nothing(tmp_path: Path, ending: str) -> None:
    finished = tmp_path / "finished"
    with start(tmp_path, follow=False) as process:
        assert process.stdout is not None
        # none of its children is left to the runtime
        assert process.stdout.readline() == b"0\n"
        assert not finished.exists()
        if ending == "kill":
            process.send_signal(signal.SIGKILL)
        # the end of the pipe comes although the watcher lives
        out, _ = process.communicate(timeout=10)
        assert out == b""
    assert eventually(finished, 5)
    # descriptor 4 is the directory that is read
    assert finished.read_text() == repr(([0, 1, 2, 3], ["/dev/null"] * 3, "/", True))


def test_it_ends_when_the_container_is_there(tmp_path: Path) -> None:
    with start(tmp_path, follow=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "happened").touch()
        time.sleep(0.3)
        process.communicate(timeout=10)
    assert not eventually(tmp_path / "finished", 0.3)


def test_following_it_finishes_where_nothing_happened(tmp_path: Path) -> None:
    with start(tmp_path, follow=True) as process:
        process.communicate(timeout=10)
    assert eventually(tmp_path / "finished", 5)
