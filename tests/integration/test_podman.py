"""podman with ``--runtime clip-runc``: conmon calls it as it calls runc."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.fs.client import ensure_clipd
from tests.integration.clip_machine import ClipMachine, Done, mounts_below
from tests.integration.prerequisites import need


class Podman:
    """podman with storage and state of its own below the machine's directory."""

    def __init__(self, machine: ClipMachine, image: str) -> None:
        self.machine = machine
        self.image = image
        where = machine.directory / "podman"
        # conmon gives the runtime no environment: the settings of this machine are named here
        self.runtime = machine.directory / "runtime"
        words = f"CLIP_RUNC_CONFIG={machine.config} exec {machine.runtime}"
        self.runtime.write_text(f'#!/bin/sh\n{words} "$@"\n')
        self.runtime.chmod(0o755)
        self.options = [
            "--root", where / "root", "--runroot", where / "run", "--tmpdir", where / "tmp",
            "--cgroup-manager", "cgroupfs", "--events-backend", "file",
            "--runtime", self.runtime,
        ]  # fmt: skip

    def call(self, *arguments: str | Path, check: bool = False) -> Done:
        return self.machine.call(["podman", *self.options, *arguments], check=check)

    def run(self, *arguments: str | Path, check: bool = False) -> Done:
        """``run`` with neither network nor init system; image and command come last."""
        # podman raises limits, which takes CAP_SYS_RESOURCE
        options = [
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ]
        return self.call("run", *options, *arguments, check=check)

    def left(self) -> list[str]:
        """Containers of podman and of ours, once conmon has ended."""
        end = time.monotonic() + 30
        while True:
            found = self.call("ps", "--all", "--quiet").stdout.split()
            found += self.machine.containers_left()
            if not found or time.monotonic() > end:
                return found
            time.sleep(0.1)


@pytest.fixture
def podman(clip: ClipMachine, plain_ref: str) -> Iterator[Podman]:
    need("podman")
    # as docs/tutorial.md says: conmon and podman 5 would wait for one that a container started
    with ensure_clipd(clip.settings):
        pass
    found = Podman(clip, plain_ref)
    found.call("pull", "--quiet", "--tls-verify=false", plain_ref, check=True)
    yield found
    found.call("rm", "--all", "--force", "--time", "0")
    for target in mounts_below(clip.directory / "podman"):
        subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)


def test_run(podman: Podman, busybox_ref: str) -> None:
    """Output, exit code and ``--rm``, of an image of ours and of an ordinary one."""
    podman.machine.index(busybox_ref)
    lazy = ["--annotation", f"dev.clip-runc.image={busybox_ref}"]
    command = ["-c", "grep ' / / ' /proc/self/mountinfo; echo err >&2; exit 7"]
    for options, ours in ((lazy, True), ([], False)):
        done = podman.run("--rm", "--entrypoint", "sh", *options, podman.image, *command)
        assert (done.returncode, done.stderr) == (7, "err\n"), done.stderr
        assert (str(podman.machine.state) in done.stdout) is ours
    assert podman.left() == []


def test_exec_inspect_stop_and_remove(podman: Podman, busybox_ref: str) -> None:
    podman.machine.index(busybox_ref)
    podman.run(
        "--detach", "--name", "c1", "--annotation", f"dev.clip-runc.image={busybox_ref}",
        "--entrypoint", "sh", podman.image,
        "-c", "echo up; trap 'exit 3' TERM; while :; do sleep 0.05; done", check=True,
    )  # fmt: skip
    done = podman.call("exec", "c1", "sh", "-c", "cat /srv/data/a; exit 4")
    assert (done.returncode, done.stdout) == (4, "one\n"), done.stderr
    done = podman.call("exec", "--user", "1234", "c1", "id", "-u", check=True)
    assert done.stdout == "1234\n"
    (found,) = json.loads(podman.call("inspect", "c1", check=True).stdout)
    assert found["State"]["Status"] == "running"
    assert found["OCIRuntime"] == str(podman.runtime)
    podman.call("stop", "--time", "30", "c1", check=True)
    (found,) = json.loads(podman.call("inspect", "c1", check=True).stdout)
    assert (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 3)
    assert podman.call("logs", "c1", check=True).stdout == "up\n"
    assert podman.machine.containers_left() == []
    podman.call("start", "c1", check=True)
    assert podman.call("exec", "c1", "cat", "/srv/data/a", check=True).stdout == "one\n"
    podman.call("kill", "c1", check=True)
    assert podman.call("wait", "c1", check=True).stdout == "137\n"
    podman.call("rm", "c1", check=True)
    assert podman.left() == []


def test_remove_by_force(podman: Podman, busybox_ref: str) -> None:
    podman.machine.index(busybox_ref)
    podman.run(
        "--detach", "--name", "c1", "--annotation", f"dev.clip-runc.image={busybox_ref}",
        "--entrypoint", "sleep", podman.image, "1000", check=True,
    )  # fmt: skip
    podman.call("rm", "--force", "--time", "0", "c1", check=True)
    assert podman.left() == []
