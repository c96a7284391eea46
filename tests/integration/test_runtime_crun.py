"""The shim over crun, which runs no poststop hook where its create fails.

``CLIP_TEST_CRUN`` names another runtime, of another version or youki (tests/others/runtime).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.clip_machine import ClipMachine, Done, mounts_below
from tests.integration.prerequisites import need

OTHER = os.environ.get("CLIP_TEST_CRUN", "")
UNIFIED = Path("/sys/fs/cgroup/unified")


class Crun:
    """A machine whose runtime is crun, and scripts that run on it."""

    def __init__(self, machine: ClipMachine, bundle: Path) -> None:
        self.machine = machine
        self.bundle = bundle

    def script(self, text: str) -> Done:
        """Run a shell script: ``$clip`` is the shim with a root, ``$bundle`` the bundle.

        crun refuses cgroup v1 with controllers in a v2 beside it, so the latter is hidden in a
        mount namespace, which makes one script out of what belongs together.
        """
        head = f"clip='{self.machine.runtime} --root {self.machine.root}'\nbundle={self.bundle}\n"
        left = (
            f"left() {{ ls {self.machine.state}/containers {self.machine.run_dir}/containers; }}\n"
        )
        command = ["sh", "-c", head + left + text]
        if (UNIFIED / "cgroup.controllers").exists():
            hidden = f'umount {UNIFIED} && exec "$@"'
            unshare = ["unshare", "--mount", "--propagation=private", "sh", "-c", hidden, "sh"]
            command = [*unshare, *command]
        return self.machine.call([*command], seconds=60)


@pytest.fixture
def crun(clip_with: Callable[..., ClipMachine], busybox_ref: str) -> Iterator[Crun]:
    """clipd and the image's mount come from a first container, in the namespace of all."""
    need("runc", *([] if OTHER else ["crun"]))
    machine = clip_with(runtime=OTHER or "crun", image_linger=300)
    bundle = machine.bundle(busybox_ref, "/bin/sleep", "60")
    warm = shutil.copytree(bundle, machine.directory / "warm")
    machine.edit(warm, lambda spec: spec["process"].update(args=["/bin/true"]))
    real = shutil.which("runc", path="/usr/sbin:/usr/bin") or "runc"
    machine.runc("run", "--bundle", warm, "w", environ={"CLIP_RUNC_RUNTIME": real}, check=True)
    before = (bundle / "config.json").read_bytes()
    yield Crun(machine, bundle)
    assert (bundle / "config.json").read_bytes() == before
    assert not mounts_below(machine.run_dir / "containers")


def test_create_start_delete(crun: Crun) -> None:
    done = crun.script("""
        set -e
        $clip create --bundle=$bundle c1 </dev/null >/dev/null 2>&1
        $clip start c1
        $clip exec c1 cat /srv/data/a >&2
        $clip state c1
        $clip delete --force c1
        left | grep c1 && exit 9
        $clip delete --force c1
    """)
    assert done.returncode == 0, done.stderr
    assert "one\n" in done.stderr
    assert json.loads(done.stdout)["status"] == "running"


def test_a_create_that_fails(crun: Crun) -> None:
    """No hook runs; the watcher has restored the bundle a moment after crun has ended."""
    config = crun.bundle / "config.json"
    kept = config.read_bytes()
    crun.machine.edit(crun.bundle, lambda spec: spec["process"].update(args=["/nope"]))
    before = config.read_bytes()
    done = crun.script("""
        for command in create run; do
            $clip $command --bundle $bundle c1 </dev/null && exit 9
            for i in 1 2 3 4 5 6 7 8 9; do left | grep -q c1 || break; sleep 0.2; done
            left | grep c1 && exit 8
        done
        exit 0
    """)
    assert done.returncode == 0, done.stderr + done.stdout
    lines = done.stderr.splitlines()
    said = "/nope" if OTHER else "executable file `/nope` not found"
    assert len([line for line in lines if said in line]) >= 2
    assert config.read_bytes() == before
    config.write_bytes(kept)


def test_run_to_its_end(crun: Crun) -> None:
    config = crun.bundle / "config.json"
    kept = config.read_bytes()
    args = ["/bin/sh", "-c", "echo up; exit 3"]
    crun.machine.edit(crun.bundle, lambda spec: spec["process"].update(args=args))
    before = config.read_bytes()
    done = crun.script("$clip run -b $bundle c1; code=$?; left | grep c1; exit $code")
    assert (done.returncode, done.stdout) == (3, "up\n"), done.stderr
    assert config.read_bytes() == before
    config.write_bytes(kept)


def test_an_id_in_use(crun: Crun) -> None:
    done = crun.script("""
        $clip create --bundle $bundle c1 </dev/null >/dev/null 2>&1 || exit 9
        $clip create --bundle $bundle c1 </dev/null && exit 8
        $clip delete c1
    """)
    assert done.returncode == 0, done.stderr
    assert ("already exists" if OTHER else "container `c1` already exists") in done.stderr
