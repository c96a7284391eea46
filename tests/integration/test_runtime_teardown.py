"""Whatever order things die in, delete or gc leaves nothing, and nothing of others is touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.clip_machine import ClipMachine, mounts_below
from tests.integration.prerequisites import need
from tests.integration.test_runc import RUNC
from tests.integration.test_runtime_faults import SLEEP, create, eventually

SECONDS = 30


@pytest.fixture
def bundle(clip: ClipMachine, busybox_ref: str) -> Iterator[Path]:
    path = clip.bundle(busybox_ref, *SLEEP)
    before = (path / "config.json").read_bytes()
    yield path
    assert (path / "config.json").read_bytes() == before


def killed_hook(clip: ClipMachine, inject: str) -> None:
    """The hook from now on runs under strace."""
    hook, real = clip.bin / "clip-runc-poststop", clip.bin / "real-hook"
    if not real.exists():
        hook.rename(real)
    hook.write_text(f'#!/bin/sh\nexec strace -o /dev/null -e {inject} {real} "$@"\n')
    hook.chmod(0o755)


@pytest.mark.parametrize("call", ["umount2", "rename", "rmdir", "unlink"])
def test_a_hook_that_dies_in_the_middle(clip: ClipMachine, bundle: Path, call: str) -> None:
    """Killed at its first, second and third such call; bench/kills takes every call there is."""
    need("strace")
    for number in (1, 2, 3):
        killed_hook(clip, f"inject={call}:signal=KILL:when={number}")
        assert create(clip, bundle, "c1") == 0
        # runc's own: the shim's delete leaves the hook nothing to do
        clip.call([RUNC, "--root", clip.root, "delete", "--force", "c1"])
        clip.runc("delete", "--force", "c1", check=True)
        clip.ctl("gc", check=True)
        assert clip.containers_left() == [], f"after {call} {number}"


def test_runc_that_dies_in_create(clip: ClipMachine, bundle: Path) -> None:
    """After so many milliseconds; no cgroup stays, and the id is free."""
    for milliseconds in range(20, 160, 20):
        command = [clip.runtime, "--root", clip.root, "create", "--bundle", bundle, "c1-killed"]
        process = subprocess.Popen(
            command, env={**os.environ, **clip.environ},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(milliseconds / 1000)
        process.kill()
        process.wait(SECONDS)
        clip.runc("delete", "--force", "c1-killed", check=True)

        def nothing() -> bool:
            return not (clip.containers_left() or list(Path("/sys/fs/cgroup").glob("*/c1-killed")))

        if not eventually(nothing, 5):
            clip.ctl("gc", check=True)
        assert eventually(nothing, SECONDS), clip.containers_left()


def test_a_container_that_runs_out_of_memory(clip: ClipMachine, bundle: Path) -> None:
    """Killed by the kernel: 137, and nothing of it stays."""
    need("memory cgroup v1")
    config = bundle / "config.json"
    kept = config.read_bytes()

    def change(spec: dict[str, dict[str, object]]) -> None:
        spec["process"]["args"] = ["/bin/sh", "-c", "x=x; while :; do x=$x$x; done"]
        spec["linux"]["resources"] = {"memory": {"limit": 24 << 20, "swap": 24 << 20}}

    clip.edit(bundle, change)
    done = clip.runc("run", "--bundle", bundle, "c1")
    assert done.returncode == 137, done.stderr
    assert clip.containers_left() == []
    config.write_bytes(kept)


def reboot(clip: ClipMachine, *names: str) -> None:
    """What a machine forgets: processes, mounts, /run.  The state directory and bundles stay."""
    for name in names:
        os.kill(json.loads(clip.runc("state", name, check=True).stdout)["pid"], signal.SIGKILL)
    status = clip.status()
    pids = [status[part]["pid"] for part in ("keeper", "supervisor", "server")]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for target in mounts_below(clip.directory):
        subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
    shutil.rmtree(clip.root)
    shutil.rmtree(clip.run_dir)
    for path in clip.state.glob("containers/*/state.json"):
        state = json.loads(path.read_text())
        path.write_text(json.dumps({**state, "boot": "another"}))


def test_a_reboot(clip: ClipMachine, busybox_ref: str) -> None:
    """The first clipd afterwards sweeps, for whatever container it is; bundles are restored."""
    bundles = [clip.bundle(busybox_ref, *SLEEP, name=f"b{n}") for n in range(3)]
    before = [(path / "config.json").read_bytes() for path in bundles]
    for number, path in enumerate(bundles):
        assert create(clip, path, f"c{number}") == 0
    reboot(clip, "c0", "c1", "c2")
    assert len(list(clip.state.glob("containers/c*"))) == 3
    assert create(clip, bundles[0], "c0") == 0  # the same id is free, and starts clipd
    assert eventually(lambda: len(list(clip.state.glob("containers/c*"))) == 1, SECONDS)
    clip.runc("delete", "--force", "c0", check=True)
    assert clip.containers_left() == []
    assert eventually(
        lambda: [(path / "config.json").read_bytes() for path in bundles] == before, SECONDS
    )


def test_a_reboot_and_then_gc(clip: ClipMachine, bundle: Path) -> None:
    assert create(clip, bundle, "c1") == 0
    reboot(clip, "c1")
    clip.runc("delete", "--force", "c1", check=True)
    clip.ctl("gc", check=True)
    assert clip.containers_left() == []


def test_strangers_are_left_alone(
    clip: ClipMachine, clip_with: Callable[..., ClipMachine], busybox_ref: str
) -> None:
    """Directories and mounts in our places that are not ours, and another clip-runc's container."""
    other = clip_with()
    path = other.bundle(busybox_ref, *SLEEP)
    assert create(other, path, "theirs") == 0
    ours = clip.bundle(busybox_ref, *SLEEP)
    assert create(clip, ours, "c1") == 0
    os.kill(json.loads(clip.runc("state", "c1", check=True).stdout)["pid"], signal.SIGKILL)
    shutil.rmtree(clip.root)
    strange = [clip.run_dir / "containers/strange/rootfs", clip.state / "containers/strange"]
    for directory in strange:
        directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", strange[0]], check=True)
    (strange[0] / "file").touch()
    # mounted into what the dead container wrote: its files are not ours to remove
    (upper,) = clip.state.glob("containers/c1-*/upper")
    (upper / "pinned").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", upper / "pinned"], check=True)
    (upper / "pinned/file").touch()
    try:
        removed = clip.ctl("gc", check=True).stdout
        assert "container c1" in removed
        assert (strange[0] / "file").exists()
        (pinned,) = clip.state.glob("containers/.trash/*/upper/pinned")
        assert (pinned / "file").exists()
        assert json.loads(other.runc("state", "theirs", check=True).stdout)["status"] == "created"
        assert len(mounts_below(other.run_dir / "containers")) == 1
    finally:
        for target in mounts_below(clip.directory):
            if target.endswith(("strange/rootfs", "pinned")):
                subprocess.run(["umount", target], check=True)
        for directory in (clip.run_dir / "containers/strange", strange[1]):
            shutil.rmtree(directory)
    clip.ctl("gc", check=True)
    assert clip.containers_left() == []
    other.runc("delete", "--force", "theirs", check=True)
