"""``--pidfd-socket`` (runc since 1.2): the caller gets the container's pidfd from runc itself."""

from __future__ import annotations

import array
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.clip_machine import ClipMachine
from tests.integration.conftest import *  # noqa: F403  # its fixtures
from tests.integration.prerequisites import need

PROGRAM = os.environ["CLIP_TEST_CRUN"]


def pid_of(pidfd: int) -> int:
    """The process that a pidfd is of (proc(5), ``/proc/PID/fdinfo``)."""
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


def test_the_caller_gets_a_pidfd(clip_with: Callable[..., ClipMachine], busybox_ref: str) -> None:
    need("root", "fuse")
    usage = subprocess.run([PROGRAM, "create", "--help"], check=False, capture_output=True)
    if b"pidfd-socket" not in usage.stdout:
        pytest.skip(f"{PROGRAM} has no --pidfd-socket")
    clip = clip_with(runtime=PROGRAM)
    bundle = clip.bundle(busybox_ref, "/bin/sleep", "60")
    path, pid_file = clip.directory / "pidfd", clip.directory / "pid"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(60)
        arguments = ["--pidfd-socket", path, "--pid-file", pid_file, "--bundle", bundle, "c1"]
        with subprocess.Popen(
            [clip.runtime, "--root", clip.root, "create", *arguments],
            env={**os.environ, **clip.environ},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            connection, _ = listener.accept()
            with connection:
                ancillary = connection.recvmsg(4096, socket.CMSG_SPACE(4))[1]
            assert process.wait(60) == 0
    (pidfd,) = array.array("i", ancillary[0][2][:4])
    assert pid_of(pidfd) == int(pid_file.read_text())
    os.close(pidfd)
    clip.runc("delete", "--force", "c1", check=True)
    assert clip.containers_left() == []
