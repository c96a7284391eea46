"""Faults 6 to 11: creates that die or fail, bundles that are shared, roots that are busy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip_runc.fs.watches import offer_file
from tests.integration.clip_machine import ClipMachine, mounts_below
from tests.integration.prerequisites import need

RUNC = shutil.which("runc", path=f"{os.environ.get('PATH')}:/usr/sbin") or "runc"
SLEEP = ("/bin/sleep", "60")


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def bundle(clip: ClipMachine, busybox_ref: str) -> Iterator[Path]:
    """A bundle whose container sleeps; its config.json must come out as it went in."""
    path = clip.bundle(busybox_ref, *SLEEP)
    before = (path / "config.json").read_bytes()
    yield path
    assert (path / "config.json").read_bytes() == before
    assert [entry.name for entry in path.iterdir() if entry.name.startswith(".config")] == []


def create(clip: ClipMachine, bundle: Path, name: str, *options: str) -> int:
    """``create`` with no pipe of ours: the container keeps its stdio for its lifetime."""
    command = [clip.runtime, "--root", clip.root, "create", "--bundle", bundle, *options, name]
    return subprocess.run(
        command, env={**os.environ, **clip.environ}, check=False, timeout=60,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ).returncode  # fmt: skip


def traced(clip: ClipMachine, bundle: Path, name: str, call: str, number: int) -> int:
    """``create`` under strace, killed at its ``number``-th ``call`` (only the shim is traced)."""
    inject = f"inject={call}:signal=KILL:when={number}"
    return subprocess.run(
        ["strace", "-o", os.devnull, "-e", f"trace={call}", "-e", inject, clip.runtime,
         "--root", clip.root, "create", "--bundle", bundle, name],
        env={**os.environ, **clip.environ}, check=False, timeout=60,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ).returncode  # fmt: skip


@pytest.mark.parametrize("call", ["mount", "rename", "mkdir", "fsync", "unlink", "execve"])
def test_a_shim_that_dies_in_create_leaves_nothing_in_the_way(
    clip: ClipMachine, bundle: Path, call: str
) -> None:
    """Killed at every such call in turn; the same id is created afterwards (fault 6)."""
    need("strace")
    killed = 0
    for number in range(1, 30):
        code = traced(clip, bundle, "c1", call, number)
        if code == 0:
            break
        killed += 1
        assert create(clip, bundle, "c1") == 0, f"after {call} {number}"
        clip.runc("delete", "--force", "c1", check=True)
        assert clip.containers_left() == []
    else:
        pytest.fail("the shim never came through")
    clip.runc("delete", "--force", "c1", check=True)
    assert clip.containers_left() == []
    assert killed or call in ("unlink", "mount", "fsync")  # none of it, on ext4


def test_a_create_that_fails_in_runc(clip: ClipMachine, bundle: Path) -> None:
    """Fault 7: runc's exit code and words, and nothing is left the moment it returns."""
    config = bundle / "config.json"
    kept = config.read_bytes()
    clip.edit(bundle, lambda spec: spec["process"].update(args=["/nope"]))
    before = config.read_bytes()
    done = clip.runc("create", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert "level=error" in done.stderr
    assert "/nope" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert config.read_bytes() == before
    assert clip.containers_left() == []
    done = clip.runc("run", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert clip.containers_left() == []
    config.write_bytes(kept)


@pytest.mark.parametrize("watcher", ["clipd", "a process of its own"])
def test_a_spec_that_runc_refuses_before_there_is_a_container(
    clip: ClipMachine, bundle: Path, watcher: str
) -> None:
    """No poststop hook runs then; whoever watches cleans up."""
    assert create(clip, bundle, "warm") == 0
    clip.runc("delete", "--force", "warm", check=True)
    offer = Path(offer_file(clip.settings))
    assert offer.exists()
    if watcher != "clipd":  # one of a version that takes no watches
        offer.unlink()
    config = bundle / "config.json"
    kept = config.read_bytes()
    clip.edit(bundle, lambda spec: spec["process"].update(cwd="relative"))
    before = config.read_bytes()
    for command in ("create", "run"):
        done = clip.runc(command, "--bundle", bundle, "c1")
        assert done.returncode == 1
        assert "Cwd must be an absolute path" in done.stderr
        assert eventually(lambda: clip.containers_left() == [])
        assert config.read_bytes() == before
    config.write_bytes(kept)


def test_a_runtime_that_is_killed_while_clipd_is_replaced(clip: ClipMachine, bundle: Path) -> None:
    """Who watches hands over: the successor takes the container down."""
    hang = clip.directory / "hang"
    hang.write_text("#!/bin/sh\ntouch $0.up\nexec sleep 60 </dev/null >/dev/null 2>&1\n")
    hang.chmod(0o755)
    assert create(clip, bundle, "warm") == 0
    with subprocess.Popen(
        [clip.runtime, "--root", clip.root, "create", "--bundle", bundle, "c1"],
        env={**os.environ, **clip.environ, "CLIP_RUNC_RUNTIME": str(hang)},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as shim:  # fmt: skip
        assert eventually((clip.directory / "hang.up").exists, 30)
        clip.ctl("upgrade", check=True)
        shim.kill()
    clip.runc("delete", "--force", "warm", check=True)
    assert eventually(lambda: clip.containers_left() == [], 20)


def test_an_error_of_ours_is_told_as_runc_tells_errors(clip: ClipMachine, bundle: Path) -> None:
    config = bundle / "config.json"
    kept = config.read_bytes()
    for value, words in (("oci:/tmp/x", "oci:"), ("/tmp/image", "/tmp/image")):
        clip.edit(
            bundle, lambda spec, v=value: spec["annotations"].update({"dev.clip-runc.image": v})
        )
        before = config.read_bytes()
        log = clip.directory / "log.json"
        log.unlink(missing_ok=True)
        options = ("--log", str(log), "--log-format", "json")
        done = clip.runc(*options, "create", "--bundle", bundle, "c1")
        assert (done.returncode, done.stdout) == (1, "")
        line = json.loads(log.read_text())
        assert line["level"] == "error"
        assert line["msg"].startswith("runc create failed: ")
        assert words in line["msg"]
        assert done.stderr == f"{line['msg']}\n"
        assert config.read_bytes() == before
        assert clip.containers_left() == []
    config.write_bytes(kept)


def test_one_bundle_three_containers(clip: ClipMachine, bundle: Path) -> None:
    """Fault 8: each has a root of its own, and config.json ends as it began."""
    for name in ("a", "b", "c"):
        assert create(clip, bundle, name) == 0
    roots = {json.loads(clip.runc("state", name).stdout)["rootfs"] for name in ("a", "b", "c")}
    assert len(roots) == 3
    assert len(mounts_below(clip.run_dir / "containers")) == 3
    for name in ("b", "c", "a"):
        clip.runc("delete", name, check=True)
    assert clip.containers_left() == []


def test_an_id_in_use(clip: ClipMachine, bundle: Path) -> None:
    assert create(clip, bundle, "c1") == 0
    ours = clip.runc("create", "--bundle", bundle, "c1")
    theirs = clip.call([RUNC, "--root", clip.root, "create", "--bundle", bundle, "c1"])
    assert ours.returncode == theirs.returncode == 1
    assert ours.stderr.partition(" ")[2] == theirs.stderr.partition(" ")[2]
    assert json.loads(clip.runc("state", "c1").stdout)["status"] == "created"
    clip.runc("delete", "--force", "c1", check=True)
    assert clip.containers_left() == []


def test_the_same_id_below_two_roots(clip: ClipMachine, bundle: Path) -> None:
    other = clip.directory / "other-root"
    assert create(clip, bundle, "c1") == 0
    options = [clip.runtime, "--root", other]
    with (clip.directory / "out").open("w") as out:
        subprocess.run(
            [*options, "create", "--bundle", bundle, "c1"], check=True, timeout=60,
            env={**os.environ, **clip.environ}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    clip.runc("delete", "c1", check=True)
    assert len(mounts_below(clip.run_dir / "containers")) == 1
    clip.call([*options, "delete", "c1"], check=True)
    assert clip.containers_left() == []


def test_a_busy_root_does_not_hold_up_delete(clip: ClipMachine, bundle: Path) -> None:
    """Fault 10: another mount namespace has a copy of every mount, and a file open in it."""
    assert create(clip, bundle, "c1") == 0
    rootfs = json.loads(clip.runc("state", "c1").stdout)["rootfs"]
    script = f"exec 9<{rootfs}/usr/bin/busybox; echo ready; read line"
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as pin:  # fmt: skip
        assert pin.stdout is not None
        assert pin.stdout.readline() == b"ready\n"
        done = clip.runc("delete", "--force", "c1")
        assert (done.returncode, done.stderr) == (0, "")
        assert clip.containers_left() == []
        pin.communicate(b"\n", timeout=10)


def test_a_deleted_working_directory(clip: ClipMachine) -> None:
    """Fault 11: what runc does there."""
    for arguments in ("create c1", "run c1", "state c1", "--version", "--root here create c1"):
        said = []
        for program in (str(clip.runtime), RUNC):
            gone = clip.directory / "gone"
            gone.mkdir()
            root = "" if "--root" in arguments else f"--root {clip.root}"
            script = f"cd {gone} && rmdir {gone} && exec {program} {root} {arguments}"
            done = clip.call(["sh", "-c", script])
            said.append((done.returncode, done.stdout, done.stderr.partition(" ")[2]))
        assert said[0] == said[1], arguments


def test_a_bundle_that_is_gone(clip: ClipMachine, bundle: Path) -> None:
    """Its container is deleted all the same."""
    copy = clip.directory / "copy"
    shutil.copytree(bundle, copy)
    assert create(clip, copy, "c1") == 0
    shutil.rmtree(copy)
    clip.runc("delete", "--force", "c1", check=True)
    assert clip.containers_left() == []
    done = clip.runc("create", "--bundle", copy, "c1")
    assert done.returncode == 1
    assert f"chdir {copy}: no such file or directory" in done.stderr


def test_delete_of_what_runc_has_forgotten(clip: ClipMachine, bundle: Path) -> None:
    """``delete --force`` succeeds, and takes our part down before it returns."""
    assert create(clip, bundle, "c1") == 0
    os.kill(json.loads(clip.runc("state", "c1").stdout)["pid"], 9)
    shutil.rmtree(clip.root / "c1")
    done = clip.runc("delete", "--force", "c1")
    assert (done.returncode, done.stderr) == (0, "")
    assert clip.containers_left() == []


def test_a_refused_delete_leaves_the_container_alone(clip: ClipMachine, bundle: Path) -> None:
    assert create(clip, bundle, "c1") == 0
    clip.runc("start", "c1", check=True)
    assert clip.runc("delete", "c1").returncode == 1
    assert clip.runc("exec", "c1", "cat", "/etc/passwd", check=True).stdout.startswith("root:")
    clip.runc("delete", "--force", "c1", check=True)
    assert clip.containers_left() == []


def test_a_hook_that_is_gone_is_made_up_for(clip: ClipMachine, bundle: Path) -> None:
    """runc reports the hook it cannot run; the watcher of delete takes the root down."""
    assert create(clip, bundle, "c1") == 0
    hook = clip.bin / "clip-runc-poststop"
    hook.rename(clip.bin / "away")
    clip.runc("delete", "--force", "c1")
    assert eventually(lambda: clip.containers_left() == [])


def test_edits_of_the_user_survive_a_container(clip: ClipMachine, bundle: Path) -> None:
    """What somebody changes in config.json while a container exists stays when it goes."""
    config = bundle / "config.json"
    kept = json.loads(config.read_text())
    before = config.read_bytes()
    assert create(clip, bundle, "c1") == 0
    clip.edit(bundle, lambda spec: spec["process"].update(args=["/bin/true"]))
    clip.runc("delete", "c1", check=True)
    kept["process"]["args"] = ["/bin/true"]
    assert json.loads(config.read_text()) == kept
    config.write_bytes(before)
