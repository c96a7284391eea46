"""By hand over the runtime that ``CLIP_TEST_RUNTIME`` names; see tests/versions/run."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.clip_machine import ClipMachine
from tests.integration.conftest import *  # noqa: F403  # its fixtures
from tests.integration.test_runtime_crun import UNIFIED


def test_from_create_to_delete(clip_with: Callable[..., ClipMachine], busybox_ref: str) -> None:
    """A lazy image: create, start, state, exec, kill, delete; and run, which ends by itself."""
    machine = clip_with(runtime=os.environ["CLIP_TEST_RUNTIME"], image_linger=300)
    bundle = machine.bundle(busybox_ref, "/bin/sleep", "1000", name="stays")
    short = machine.bundle(busybox_ref, "/bin/sh", "-c", "cat /srv/data/a; exit 7", name="short")
    # crun refuses cgroup v1 with controllers in a v2 beside it: hidden in a namespace of ours
    hidden = f"umount {UNIFIED} && exec sleep 1000"
    keeper = None
    prefix: list[str] = []
    machine.ctl("mount", busybox_ref, machine.directory / "warm", check=True)
    machine.ctl("umount", machine.directory / "warm", check=True)
    if (UNIFIED / "cgroup.controllers").exists() and "crun" in os.environ["CLIP_TEST_RUNTIME"]:
        keeper = subprocess.Popen(["unshare", "--mount", "--propagation=slave", "sh", "-c", hidden])
        prefix = ["nsenter", "--mount", "--target", str(keeper.pid)]
        end = time.monotonic() + 30
        while f" {UNIFIED} " in Path(f"/proc/{keeper.pid}/mountinfo").read_text():
            assert time.monotonic() < end
            time.sleep(0.05)

    def call(words: str, code: int = 0) -> str:
        # a container that stays must not hold the pipe of our output
        out = machine.directory / "out"
        shell = [*prefix, "sh", "-c", f'exec "$0" "$@" >{out} 2>&1', machine.runtime]
        done = machine.call([*shell, "--root", machine.root, *words.split()], seconds=60)
        text = out.read_text()
        assert done.returncode == code, f"{words}: {done.returncode}: {text}{done.stderr}"
        return text

    try:
        assert call(f"run --bundle {short} once", 7) == "one\n"
        call(f"create --bundle {bundle} c1")
        assert json.loads(call("state c1"))["status"] == "created"
        call("start c1")
        assert json.loads(call("state c1"))["status"] == "running"
        assert call("exec c1 cat /srv/data/a") == "one\n"
        call("kill c1 KILL")
        end = time.monotonic() + 30
        while json.loads(call("state c1"))["status"] != "stopped" and time.monotonic() < end:
            time.sleep(0.05)
        call("delete c1")
        end = time.monotonic() + 30
        while machine.containers_left() and time.monotonic() < end:
            time.sleep(0.1)
        assert machine.containers_left() == []
    finally:
        machine.runc("delete", "--force", "c1")
        if keeper:
            keeper.kill()
            keeper.wait()
