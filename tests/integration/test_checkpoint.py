"""``checkpoint`` and ``restore``, with a runtime that does to containers what runc with criu does.

criu needs CAP_SYS_RESOURCE.  What it does inside the process is not our part; that runc destroys
the container afterwards, and starts it again from the same bundle, is, and so does the stand-in,
with the real runc.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.clip_machine import ClipMachine
from tests.integration.test_runtime_exec import RUNC

STAND_IN = """#!/bin/sh
# checkpoint: images that say so, then destroyed; restore: a container of the bundle
root=$2 command=$3 images= bundle= leave=
[ "$1" = --root ] || exit 64
case $command in checkpoint|restore) shift 3 ;; *) exec RUNC "$@" ;; esac
while [ $# -gt 1 ]; do
    case $1 in
    --image-path) images=$2; shift ;;
    --bundle) bundle=$2; shift ;;
    --work-path) shift ;;
    --leave-running) leave=yes ;;
    esac
    shift
done
if [ "$command" = restore ]; then
    [ -e "$images/inventory.img" ] || { echo "no checkpoint" >&2; exit 1; }
    exec RUNC --root "$root" run --detach --bundle "$bundle" "$1" </dev/null >/dev/null 2>&1
fi
[ ! -e "$root/no-criu" ] || exit 1
mkdir -p "$images" && touch "$images/inventory.img"
[ -n "$leave" ] || exec RUNC --root "$root" delete --force "$1"
"""


@pytest.fixture
def environ(clip: ClipMachine) -> dict[str, str]:
    """The environment in which the stand-in is the runtime."""
    program = clip.directory / "with-criu"
    program.write_text(STAND_IN.replace("RUNC", RUNC))
    program.chmod(0o755)
    return {"CLIP_RUNC_RUNTIME": str(program)}


@pytest.fixture
def bundle(clip: ClipMachine, busybox_ref: str) -> Path:
    """Its container sleeps, as root: files are written by ``exec``."""
    path = clip.bundle(busybox_ref, "/bin/sleep", "60")
    clip.edit(path, lambda spec: spec["process"].update(user={"uid": 0, "gid": 0}, cwd="/"))
    return path


def start(clip: ClipMachine, bundle: Path, name: str) -> None:
    subprocess.run(
        [clip.runtime, "--root", clip.root, "run", "--detach", "--bundle", bundle, name],
        env={**os.environ, **clip.environ}, check=True, timeout=60,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def sh(clip: ClipMachine, name: str, script: str) -> str:
    return clip.runc("exec", name, "/bin/sh", "-c", script, check=True).stdout


WRITE = "echo mine > /etc/own; rm /etc/passwd; mkdir -p /new/deep; chown 7:8 /new"
READ = "cat /etc/own; ls /etc/passwd 2>/dev/null; stat -c %u:%g /new"


def test_what_was_written_is_there_after_restore(
    clip: ClipMachine, bundle: Path, environ: dict[str, str]
) -> None:
    """And again after the next one: the checkpoint can be restored as often as one likes."""
    before = (bundle / "config.json").read_bytes()
    images = clip.directory / "images"
    start(clip, bundle, "c1")
    sh(clip, "c1", WRITE)
    clip.runc("checkpoint", "--image-path", images, "c1", environ=environ, check=True)
    assert clip.containers_left() == []
    assert (bundle / "config.json").read_bytes() == before
    for name in ("c1", "c2"):
        options = ["--image-path", images, "--bundle", bundle, "--detach", "--link-remap"]
        clip.runc("restore", *options, name, environ=environ, check=True)
        assert sh(clip, name, READ) == "mine\n7:8\n"
        sh(clip, name, "echo other > /etc/own")
    clip.runc("delete", "--force", "c1", check=True)
    clip.runc("delete", "--force", "c2", check=True)
    start(clip, bundle, "fresh")
    assert "own" not in sh(clip, "fresh", "ls /etc").split()
    clip.runc("delete", "--force", "fresh", check=True)
    assert clip.containers_left() == []
    assert (bundle / "config.json").read_bytes() == before
    clip.ctl("stop", check=True)  # clipd looks for the like by itself, and may be first
    shutil.rmtree(bundle)
    assert str(bundle) in clip.ctl("gc", check=True).stdout
    assert os.listdir(clip.state / "containers/.kept") == []


def test_one_that_runs_on_keeps_when_it_is_deleted(
    clip: ClipMachine, bundle: Path, environ: dict[str, str]
) -> None:
    images = clip.directory / "images"
    start(clip, bundle, "c1")
    options = ["--image-path", images, "--leave-running"]
    clip.runc("checkpoint", *options, "c1", environ=environ, check=True)
    assert json.loads(clip.runc("state", "c1").stdout)["status"] == "running"
    sh(clip, "c1", WRITE)
    clip.runc("delete", "--force", "c1", check=True)
    options = ["--image-path", images, "--bundle", bundle, "--detach"]
    clip.runc("restore", *options, "c1", environ=environ, check=True)
    assert sh(clip, "c1", READ) == "mine\n7:8\n"
    clip.runc("delete", "--force", "c1", check=True)


@pytest.mark.parametrize("options", [(), ("--pre-dump",)])
def test_a_checkpoint_that_was_none_keeps_nothing(
    clip: ClipMachine, bundle: Path, options: tuple[str, ...]
) -> None:
    """The real runc, whose criu is missing: its words, its code, and nothing of ours."""
    images = clip.directory / "images"
    start(clip, bundle, "c1")
    said = []
    for program in (str(clip.runtime), RUNC):
        command = [program, "--root", clip.root, "checkpoint", "--image-path", images, *options]
        done = clip.call([*command, "c1"])
        said.append((done.returncode, done.stdout, done.stderr.partition(" ")[2]))
    assert said[0] == said[1]
    assert said[0][0] != 0
    clip.runc("delete", "--force", "c1", check=True)
    assert clip.containers_left() == []
    assert not (clip.state / "containers/.kept").exists()
