"""Docker starts containers through clip-runc; see tests/others/docker."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.clip_machine import ClipMachine, Done, mounts_below
from tests.integration.conftest import *  # noqa: F403  # its fixtures
from tests.integration.daemons import Daemon, wait_for
from tests.integration.prerequisites import PROGRAMS, need

PROGRAMS.setdefault("docker", "docker")
PROGRAMS.setdefault("dockerd", "dockerd")


class Docker(Daemon):
    """A dockerd of its own whose runtimes are runc and ``clip``."""

    def __init__(self, machine: ClipMachine) -> None:
        self.machine = machine
        self.where = machine.directory / "docker"
        self.where.mkdir()
        self.socket = self.where / "docker.sock"
        config = self.where / "daemon.json"
        config.write_text(json.dumps({"runtimes": {"clip": {"path": str(machine.runtime)}}}))
        command = [
            "dockerd", "--config-file", str(config), "--host", f"unix://{self.socket}",
            "--data-root", str(self.where / "data"), "--exec-root", str(self.where / "run"),
            "--pidfile", str(self.where / "pid"), "--bridge", "none", "--iptables=false",
            "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
            "--insecure-registry", "127.0.0.0/8",
        ]  # fmt: skip
        super().__init__(command, self.where / "log", machine.environ)
        wait_for(self._ready, "dockerd", 60)

    def _ready(self) -> bool:
        self.check()
        return self.socket.exists() and self.call("version").returncode == 0

    def call(self, *arguments: str | Path, check: bool = False) -> Done:
        return self.machine.call(
            ["docker", "--host", f"unix://{self.socket}", *arguments], check=check
        )

    def run(self, *arguments: str | Path, check: bool = False) -> Done:
        return self.call("run", "--network", "none", *arguments, check=check)


@pytest.fixture
def docker(clip: ClipMachine, plain_ref: str) -> Iterator[Docker]:
    need("docker", "dockerd", "containerd")
    daemon = Docker(clip)
    daemon.call("pull", "--quiet", plain_ref, check=True)
    yield daemon
    for name in daemon.call("ps", "--all", "--quiet").stdout.split():
        daemon.call("rm", "--force", name)
    daemon.stop()
    for target in mounts_below(daemon.where):
        subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)


def test_an_ordinary_image(docker: Docker, plain_ref: str) -> None:
    """No annotation: its containers pass through, whatever they do."""
    done = docker.run(
        "--rm",
        "--runtime",
        "clip",
        "--entrypoint",
        "sh",
        plain_ref,
        "-c",
        "cat /srv/data/a; exit 7",
    )
    assert (done.returncode, done.stdout) == (7, "one\n"), done.stderr + docker.tail()
    docker.run(
        "--detach", "--name", "c1", "--runtime", "clip", "--entrypoint", "sleep", plain_ref, "1000",
        check=True,
    )  # fmt: skip
    done = docker.call("exec", "c1", "sh", "-c", "cat /srv/data/a; exit 4")
    assert (done.returncode, done.stdout) == (4, "one\n"), done.stderr
    docker.call("kill", "c1", check=True)
    assert docker.call("wait", "c1", check=True).stdout == "137\n"
    docker.call("rm", "c1", check=True)
    assert not mounts_below(docker.machine.run_dir)


def test_a_stub_image(docker: Docker, busybox_ref: str, registry: object) -> None:
    """The index is in the image that Docker pulls: nothing but the runtime entry is needed."""
    host = busybox_ref.partition("/")[0]
    stub = f"{host}/stubs/busybox:latest"
    docker.machine.index(busybox_ref)
    docker.machine.ctl("publish", busybox_ref, stub, check=True)
    docker.call("pull", "--quiet", stub, check=True)
    script = "grep ' / / ' /proc/self/mountinfo; cat /srv/data/a; exit 7"
    done = docker.run("--rm", "--runtime", "clip", "--entrypoint", "sh", stub, "-c", script)
    assert done.returncode == 7, done.stderr + docker.tail()
    mount, text = done.stdout.splitlines()
    assert str(docker.machine.state) in mount
    assert text == "one"
    docker.run(
        "--detach", "--name", "c1", "--runtime", "clip", "--entrypoint", "sh", stub,
        "-c", "echo up; trap 'exit 3' INT TERM; while :; do sleep 0.05; done", check=True,
    )  # fmt: skip
    done = docker.call("exec", "c1", "sh", "-c", "cat /srv/data/a; exit 4")
    assert (done.returncode, done.stdout) == (4, "one\n"), done.stderr
    docker.call("stop", "--time", "30", "c1", check=True)
    assert docker.call("wait", "c1", check=True).stdout == "3\n"
    assert docker.call("logs", "c1", check=True).stdout == "up\n"
    docker.call("start", "c1", check=True)
    assert docker.call("exec", "c1", "cat", "/srv/data/a", check=True).stdout == "one\n"
    docker.call("rm", "--force", "c1", check=True)
    assert docker.machine.containers_left() == []


def test_an_annotation(docker: Docker, plain_ref: str, busybox_ref: str) -> None:
    """``docker run --annotation`` names the lazy image, as docs/tutorial.md has it."""
    said = docker.call("version", "--format", "{{.Server.Version}}", check=True).stdout
    if int(said.partition(".")[0]) < 24:
        pytest.skip("prerequisite docker 24: it brought --annotation")
    docker.machine.index(busybox_ref)
    annotation = f"dev.clip-runc.image={busybox_ref}"
    done = docker.run(
        "--rm", "--runtime", "clip", "--annotation", annotation, "--entrypoint", "sh", plain_ref,
        "-c", "grep ' / / ' /proc/self/mountinfo; exit 7",
    )  # fmt: skip
    assert done.returncode == 7, done.stderr + docker.tail()
    assert str(docker.machine.state) in done.stdout
    assert docker.machine.containers_left() == []
