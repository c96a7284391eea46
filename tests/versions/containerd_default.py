"""``clipctl install --containerd`` on a node as containerd's package leaves it; a pod by it."""

from __future__ import annotations

import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.cli.checks.engines import runtimes
from tests.integration.clip_machine import ClipMachine
from tests.integration.conftest import *  # noqa: F403  # its fixtures
from tests.integration.cri import Cri
from tests.integration.daemons import Containerd


def default() -> str:
    """What this containerd says its configuration is where there is no file."""
    command = ["containerd", "config", "default"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def here(text: str, directory: Path, pause: str) -> str:
    """The same for a daemon beside others: its own paths, our pause, no pod's OOM score."""
    for path, ours in {
        "/var/lib/containerd": "root", "/run/containerd/": "", "/run/containerd": "state",
        "/opt/containerd": "opt", "/var/run/nri": "nri",
    }.items():  # fmt: skip
        text = text.replace(path, f"{directory}/{ours}")
    lines = []
    for line in text.splitlines(keepends=True):
        name = line.partition("=")[0].rstrip()
        if name.strip() in ("sandbox_image", "sandbox"):
            line = f'{name} = "{pause}"\n'
        elif name.strip() == "restrict_oom_score_adj":
            line = f"{name} = true\n"
        lines.append(line)
    return "".join(lines)


OLD = """\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = ""
  restrict_oom_score_adj = false
"""


@pytest.fixture(params=["default", "old"])
def node(request: pytest.FixtureRequest, clip: ClipMachine, plain_ref: str) -> Iterator[Containerd]:
    """The daemon with what the command made of its own configuration, and of a short old one."""
    directory = clip.directory / "node"
    config = directory / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    before = here(default() if request.param == "default" else OLD, directory, plain_ref)
    config.write_text(before)
    place = ["--bin-dir", str(clip.bin), "--root", str(directory)]
    clip.ctl("install", "--containerd", *place, check=True)
    daemon = Containerd(directory, environ=clip.environ, text=config.read_text())
    yield daemon
    daemon.stop()
    clip.ctl("uninstall", *place, check=True)
    assert config.read_text() == before


def test_a_pod(node: Containerd, clip: ClipMachine, busybox_ref: str, plain_ref: str) -> None:
    """The handler is there beside containerd's own, and a pod with it starts lazily."""
    dump = [str(shutil.which("containerd")), "--config", str(node.directory / "config.toml")]
    said = subprocess.run([*dump, "config", "dump"], capture_output=True, text=True, check=True)
    found = runtimes(tomllib.loads(said.stdout))
    assert found["clip-runc"]["options"]["BinaryName"] == str(clip.runtime)
    assert "runc" in found
    clip.index(busybox_ref)
    kubelet = Cri(node.socket, clip.directory / "pods")
    kubelet.pull(plain_ref)
    sandbox = kubelet.run_sandbox("lazy", handler="clip-runc")
    command = ["grep", " / / ", "/proc/self/mountinfo"]
    annotation = {"dev.clip-runc.image": busybox_ref}
    container = kubelet.create(sandbox, "lazy", plain_ref, command, annotation)
    kubelet.start(container)
    end = time.monotonic() + 60
    while kubelet.exited(container) is None:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert str(clip.state) in (kubelet.logs / "lazy.log").read_text()
    kubelet.remove(container)
    kubelet.remove_sandbox(sandbox)
    assert clip.containers_left() == []
