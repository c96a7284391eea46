"""nvidia-container-runtime and clip-runc over one bundle; see tests/others/nvidia.

No GPU: the CDI specification is of ordinary devices, /dev/null under the name of one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.clip_machine import ClipMachine, Done, mounts_below
from tests.integration.conftest import *  # noqa: F403  # its fixtures
from tests.integration.daemons import Containerd
from tests.integration.prerequisites import PROGRAMS, need

NVIDIA, HOOK = "nvidia-container-runtime", "nvidia-cdi-hook"
PROGRAMS.update({NVIDIA: NVIDIA, HOOK: HOOK})
SEEN = "ls -l /dev/nvidia0; echo $FROM_CDI; cat /srv/libcuda.so.1; readlink /srv/libcuda.so"
LOOK = f"{SEEN}; cat /srv/data/a; grep ' / / ' /proc/self/mountinfo"


class Node(NamedTuple):
    """A machine, and the program that engines call."""

    machine: ClipMachine
    program: Path
    library: Path

    def call(self, *arguments: str | Path, check: bool = True) -> Done:
        return self.machine.call(
            [self.program, "--root", self.machine.root, *arguments], check=check
        )

    def judge(self, output: str) -> None:
        """Both have done their part: NVIDIA's device, variable, file and link, and our root."""
        device, variable, library, link, data, root = output.splitlines()
        assert device.startswith("c") and " 1, " in device and " 3 " in device
        assert (variable, library, link, data) == ("yes", "a library", "libcuda.so.1", "one")
        assert str(self.machine.state) in root


def cdi(library: Path) -> dict[str, Any]:
    """What ``nvidia-ctk cdi generate`` writes, of what every machine has."""
    link = ["create-symlinks", "--link", "libcuda.so.1::/srv/libcuda.so"]
    hook = {"hookName": "createContainer", "path": shutil.which(HOOK), "args": [HOOK, *link]}
    node = {"path": "/dev/nvidia0", "hostPath": "/dev/null"}
    bind = ["ro", "nosuid", "nodev", "bind"]
    mount = {"hostPath": str(library), "containerPath": "/srv/libcuda.so.1", "options": bind}
    edits = {"deviceNodes": [node], "env": ["FROM_CDI=yes"], "mounts": [mount], "hooks": [hook]}
    devices = [{"name": "0", "containerEdits": edits}]
    return {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}


@pytest.fixture(params=["in front", "behind"])
def node(request: pytest.FixtureRequest, clip_with: Callable[..., ClipMachine]) -> Node:
    """Both orders; NVIDIA's settings are found by XDG_CONFIG_HOME."""
    need("runc", NVIDIA, HOOK)
    nvidia, runc = shutil.which(NVIDIA), shutil.which("runc", path="/usr/sbin:/usr/bin")
    front = request.param == "in front"
    machine = clip_with(image_linger=300, **({} if front else {"runtime": nvidia}))
    specs = machine.directory / "cdi"
    specs.mkdir()
    library = specs / "libcuda.so.1"
    library.write_text("a library\n")
    (specs / "nvidia.json").write_text(json.dumps(cdi(library)))
    settings = machine.directory / "xdg/nvidia-container-runtime/config.toml"
    settings.parent.mkdir(parents=True)
    real = json.dumps([str(machine.runtime) if front else runc])
    settings.write_text(
        f'[nvidia-container-runtime]\nmode = "cdi"\nruntimes = {real}\n'
        f"[nvidia-container-runtime.modes.cdi]\nspec-dirs = [{json.dumps(str(specs))}]\n"
    )
    machine.environ["XDG_CONFIG_HOME"] = str(machine.directory / "xdg")
    return Node(machine, Path(nvidia or NVIDIA) if front else machine.runtime, library)


def ask_for_a_gpu(spec: dict[str, Any]) -> None:
    spec["process"]["env"].append("NVIDIA_VISIBLE_DEVICES=0")


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_by_hand(node: Node, busybox_ref: str) -> None:
    """create, start, exec, kill, delete; then the bundle is free of us and can be used again."""
    machine = node.machine
    bundle = machine.bundle(busybox_ref, "/bin/sleep", "1000")
    machine.edit(bundle, ask_for_a_gpu)
    before = json.loads((bundle / "config.json").read_text())
    for name in ("c1", "c2"):
        # a container that stays must not hold the pipe of our output
        shell = 'exec "$0" "$@" >create.out 2>&1'
        create = [node.program, "--root", machine.root, "create", "--bundle", bundle, name]
        machine.call(["sh", "-c", shell, *create], cwd=machine.directory, check=True)
        node.call("start", name)
        node.judge(node.call("exec", name, "sh", "-c", LOOK).stdout)
        (ours,) = json.loads((bundle / "config.json").read_text())["hooks"]["poststop"]
        assert ours["env"]  # one without would get the runtime's own
        said = json.loads(node.call("state", name).stdout)["annotations"]
        assert said["dev.clip-runc.state.image"] == busybox_ref
        node.call("kill", name, "KILL")
        until(lambda name=name: _status(node, name) == "stopped")
        node.call("delete", name)
        assert machine.containers_left() == []
        after = json.loads((bundle / "config.json").read_text())
        assert after["root"]["path"] == before["root"]["path"]
        assert "poststop" not in after.get("hooks", {})
        assert not any(key.startswith("dev.clip-runc.state") for key in after["annotations"])
        assert "FROM_CDI=yes" in after["process"]["env"]  # NVIDIA's part, as with runc alone


def _status(node: Node, name: str) -> str:
    return str(json.loads(node.call("state", name).stdout)["status"])


def test_force_deleted_by_runc_itself(node: Node, busybox_ref: str) -> None:
    """Nobody calls our delete: the poststop hook takes the container down in either order."""
    machine = node.machine
    bundle = machine.bundle(busybox_ref, "/bin/sleep", "1000")
    machine.edit(bundle, ask_for_a_gpu)
    shell = 'exec "$0" "$@" >create.out 2>&1'
    create = [node.program, "--root", machine.root, "create", "--bundle", bundle, "c1"]
    machine.call(["sh", "-c", shell, *create], cwd=machine.directory, check=True)
    assert machine.containers_left()
    machine.call(["runc", "--root", machine.root, "delete", "--force", "c1"], check=True)
    until(lambda: machine.containers_left() == [])


def test_a_device_that_is_none(node: Node, busybox_ref: str) -> None:
    """NVIDIA refuses; whoever came first has left nothing."""
    machine = node.machine
    bundle = machine.bundle(busybox_ref, "/bin/true")
    machine.edit(bundle, lambda spec: spec["process"]["env"].append("NVIDIA_VISIBLE_DEVICES=9"))
    before = (bundle / "config.json").read_bytes()
    done = node.call("create", "--bundle", bundle, "c1", check=False)
    assert done.returncode == 1
    assert "nvidia.com/gpu=9" in done.stderr
    until(lambda: machine.containers_left() == [])
    until(lambda: (bundle / "config.json").read_bytes() == before)


def test_below_containerd(node: Node, busybox_ref: str, plain_ref: str) -> None:
    """``ctr run`` with a runc binary that is the first of the two."""
    need("containerd")
    machine = node.machine
    machine.index(busybox_ref)
    daemon = Containerd(machine.directory / "containerd", environ=machine.environ)
    try:
        daemon.ctr("image", "pull", "--plain-http", plain_ref, check=True)
        done = daemon.ctr(
            "run", "--rm", "--runc-binary", str(node.program),
            "--annotation", f"dev.clip-runc.image={busybox_ref}",
            "--env", "NVIDIA_VISIBLE_DEVICES=0", plain_ref, "gpu", "sh", "-c", LOOK,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + daemon.tail()
        node.judge(done.stdout)
    finally:
        daemon.stop()
    assert machine.containers_left() == []
    assert not mounts_below(machine.directory / "containerd")
