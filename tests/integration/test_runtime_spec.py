"""What a config.json can ask for, under an image of ours, with the real runc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clip_machine import ClipMachine
from tests.integration.test_runtime_exec import RUNC

MAPPINGS = [{"containerID": 0, "hostID": 200_000, "size": 65_536}]
LOOK = "stat -c '%u %g' / /bin /srv/data/a; echo mine > /srv/data/new; chmod 600 /srv/data/a; id -u"


def in_user_namespace(spec: dict[str, Any], path: str = "") -> None:
    linux = spec["linux"]
    linux["namespaces"].append({"type": "user", **({"path": path} if path else {})})
    linux.update(uidMappings=MAPPINGS, gidMappings=MAPPINGS)
    spec["process"]["user"] = {"uid": 0, "gid": 0}
    # sysfs can be mounted by a namespace that owns the network only
    spec["mounts"] = [one for one in spec["mounts"] if one["type"] not in ("sysfs", "cgroup")]


@pytest.fixture
def passable(scratch: Path) -> None:
    """The root of a user namespace is nobody on the way to its root filesystem."""
    scratch.chmod(0o711)


@pytest.mark.parametrize("mode", ["erofs", "loop", "tree"])
def test_a_user_namespace_sees_its_own_owners(
    clip_with: Callable[..., ClipMachine], busybox_ref: str, passable: None, mode: str
) -> None:
    """Nothing is copied: the mount translates, and what is written belongs to the host's ids."""
    clip = clip_with(layer_mode=mode)
    clip.directory.chmod(0o711)
    bundle = clip.bundle(busybox_ref, "/bin/sh", "-c", f"{LOOK}; read line")
    clip.edit(bundle, in_user_namespace)
    process = subprocess.Popen(
        [clip.runtime, "--root", clip.root, "run", "--bundle", bundle, "c1"],
        env={**os.environ, **clip.environ}, stdin=-1, stdout=-1, stderr=-1, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(4)]
    (upper,) = clip.state.glob("containers/c1-*/upper")
    owners = {}
    if (upper / "srv/data/new").exists():
        owners = {name: (upper / f"srv/data/{name}").stat().st_uid for name in ("a", "new")}
    out, errors = process.communicate("\n", timeout=60)
    assert (process.returncode, out) == (0, ""), errors
    assert seen == ["0 0\n", "0 0\n", "0 0\n", "0\n"], errors
    assert owners == {"a": 200_000, "new": 200_000}
    assert clip.containers_left() == []


def test_a_user_namespace_that_is_there_already(
    clip: ClipMachine, busybox_ref: str, passable: None
) -> None:
    """``linux.namespaces`` with a path, as pods of containerd have it."""
    clip.directory.chmod(0o711)
    bundle = clip.bundle(busybox_ref, "/bin/stat", "-c", "%u", "/srv/data/a")
    with subprocess.Popen(
        ["unshare", "--user", "sh", "-c", "echo; read line"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text("0 200000 65536\n")
        clip.edit(bundle, lambda spec: in_user_namespace(spec, f"/proc/{holder.pid}/ns/user"))
        done = clip.runc("run", "--bundle", bundle, "c1")
        holder.communicate(b"\n", timeout=20)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_where_owners_cannot_be_translated_that_is_said(
    clip_with: Callable[..., ClipMachine], busybox_ref: str
) -> None:
    """As before Linux 5.12, or FUSE before 6.12: what to do, and nothing is left."""
    clip = clip_with(layer_mode="tree")
    bundle = clip.bundle(busybox_ref, "/bin/true")
    clip.edit(bundle, in_user_namespace)
    before = (bundle / "config.json").read_bytes()
    # the shim alone: with -f strace waits for the end of a clipd that it started
    strace = ["strace", "-qq", "-e", "trace=mount_setattr", "-o", "/dev/null"]
    strace += ["-e", "inject=mount_setattr:error=EINVAL", clip.runtime, "--root", clip.root]
    done = clip.call([*strace, "run", "--bundle", bundle, "c1"])
    assert done.returncode == 1
    assert "idmapped mount of" in done.stderr and "Linux 6.12" in done.stderr
    assert (bundle / "config.json").read_bytes() == before
    assert clip.containers_left() == []


def test_a_readonly_root_with_a_mount_point_that_is_not_there(
    clip: ClipMachine, busybox_ref: str
) -> None:
    """runc makes mount points before it makes the root read-only."""
    command = "echo in > /new/mount/file; cat /new/mount/file; touch /file || echo refused"
    bundle = clip.bundle(busybox_ref, "/bin/sh", "-c", command)

    def change(spec: dict[str, Any]) -> None:
        spec["root"]["readonly"] = True
        spec["process"]["user"] = {"uid": 0, "gid": 0}
        spec["mounts"].append({"destination": "/new/mount", "type": "tmpfs", "source": "tmpfs"})

    clip.edit(bundle, change)
    done = clip.runc("run", "--bundle", bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "in\nrefused\n"), done.stderr
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("propagation", ["private", "slave", "shared", "rshared", "unbindable"])
def test_propagation_of_the_root(clip: ClipMachine, busybox_ref: str, propagation: str) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/cat", "/srv/data/a")
    clip.edit(bundle, lambda spec: spec["linux"].update(rootfsPropagation=propagation))
    done = clip.runc("run", "--bundle", bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr
    assert clip.containers_left() == []


def test_no_pivot(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/cat", "/srv/data/a")
    done = clip.runc("run", "--no-pivot", "--bundle", bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr
    assert clip.containers_left() == []


def test_a_host_whose_root_is_read_only(clip: ClipMachine, busybox_ref: str) -> None:
    """What is written is below our directories and runc's; nothing else of the host is."""
    bundle = clip.bundle(busybox_ref, "/bin/cat", "/srv/data/a")
    here = clip.directory
    script = f"""
        mount --bind {here} {here} && mount -o remount,bind,ro / || exit 9
        touch /clip-runc-was-here 2>/dev/null && exit 8
        {clip.runtime} --root {clip.root} run --bundle {bundle} c1
        code=$?
        {sys.executable} -B -m clip_runc.cli.main stop >/dev/null
        exit $code
    """
    done = clip.call(["unshare", "--mount", "--propagation=private", "sh", "-c", script])
    assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr
    assert clip.containers_left() == []


def test_config_json_is_a_symlink_out_of_the_bundle(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/cat", "/srv/data/a")
    outside = clip.directory / "elsewhere.json"
    config = bundle / "config.json"
    config.rename(outside)
    before = outside.read_bytes()
    config.symlink_to("../elsewhere.json")
    done = clip.runc("run", "--bundle", bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr
    assert os.readlink(config) == "../elsewhere.json"
    assert outside.read_bytes() == before
    assert clip.containers_left() == []


def test_a_bundle_on_read_only_storage(clip: ClipMachine, busybox_ref: str) -> None:
    """Refused with the reason where our image was named; an ordinary one starts as it is."""
    bundle = clip.bundle(busybox_ref, "/bin/cat", "/srv/data/a")
    script = f"""
        mount --bind {bundle} {bundle} && mount -o remount,bind,ro {bundle} || exit 9
        {clip.runtime} --root {clip.root} run --bundle {bundle} c1
    """
    done = clip.call(["unshare", "--mount", "--propagation=private", "sh", "-c", script])
    assert done.returncode == 1
    assert f"{bundle}: cannot rewrite config.json: Read-only file system" in done.stderr
    assert "storage that can be written" in done.stderr
    assert clip.containers_left() == []


def test_two_creates_of_one_id_at_once(clip: ClipMachine, busybox_ref: str) -> None:
    """One wins, as in runc, and its container is whole; six times, of six bundles each."""
    bundles = [clip.bundle(busybox_ref, "/bin/sleep", "60", name=f"b{n}") for n in range(6)]
    for _ in range(6):
        running = [
            subprocess.Popen(
                [clip.runtime, "--root", clip.root, "create", "--bundle", bundle, "c1"],
                env={**os.environ, **clip.environ}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for bundle in bundles
        ]  # fmt: skip
        codes = [process.wait(60) for process in running]
        assert sorted(codes) == [0, 1, 1, 1, 1, 1]
        clip.runc("start", "c1", check=True)
        assert clip.runc("exec", "c1", "cat", "/srv/data/a", check=True).stdout == "one\n"
        clip.runc("delete", "--force", "c1", check=True)
        end = time.monotonic() + 20
        while clip.containers_left() and time.monotonic() < end:
            time.sleep(0.05)
        assert clip.containers_left() == []


def test_how_lazy_it_was_is_said_in_log_state_and_ps(clip: ClipMachine, busybox_ref: str) -> None:
    """The same words in all three; what the bundle claims of itself is not among them."""
    bundle = clip.bundle(busybox_ref, "/bin/true")
    kind = "dev.clip-runc.state."
    clip.edit(bundle, lambda spec: spec["annotations"].update({f"{kind}mode": "claimed"}))
    log = clip.directory / "log"
    script = (
        f"exec {clip.runtime} --root {clip.root} --log {log} --log-format json "
        f"create --bundle {bundle} c1 </dev/null >/dev/null 2>&1"
    )
    clip.call(["sh", "-c", script], check=True)
    line = json.loads(log.read_text())
    state = json.loads(clip.runc("state", "c1", check=True).stdout)["annotations"]
    said = {k.removeprefix(kind): v for k, v in state.items() if k.startswith(kind)}
    (shown,) = json.loads(clip.ctl("ps", "--json", check=True).stdout)
    table = clip.ctl("ps", check=True).stdout
    theirs = clip.call([RUNC, "--root", clip.root, "state", "c1"], check=True).stdout
    assert json.loads(theirs)["annotations"] == state
    clip.runc("delete", "c1", check=True)
    assert shown["start"] == said
    assert {name: line[name] for name in said} == said
    assert set(line) == {*said, "container", "level", "msg", "rewrite_ms", "time"}
    assert said["mode"] in ("erofs", "loop", "tree")
    assert said["image"] == busybox_ref and said["source"] == "annotation dev.clip-runc.image"
    complete, lazy = said["layers"].split(", ")
    assert complete.endswith(" complete") and int(lazy.removesuffix(" lazy")) > 0
    assert said["layers"] in table and "resolve" in table
    assert json.loads((bundle / "config.json").read_text())["annotations"][f"{kind}mode"]


def test_an_image_that_was_expected_lazy_and_is_not(
    clip_with: Callable[..., ClipMachine], busybox_ref: str
) -> None:
    """A warning with the reason in the log, and the bundle's own files."""
    clip = clip_with(explicit_policy="pass")
    bundle = clip.bundle(busybox_ref, "/bin/true")
    other = busybox_ref.replace("small/busybox", "not/indexed")
    clip.edit(bundle, lambda spec: spec["annotations"].update({"dev.clip-runc.image": other}))
    log = clip.directory / "log"
    options = ("--log", str(log), "--log-format", "json")
    clip.runc(*options, "create", "--bundle", bundle, "c1")  # the bundle has no files: runc fails
    first = json.loads(log.read_text().splitlines()[0])
    assert first["level"] == "warning", first
    assert first["msg"].startswith("clip-runc: not lazy: ")
    assert other in first["msg"]
    (event,) = [json.loads(text) for text in clip.ctl("events", "--json").stdout.splitlines()]
    assert (event["event"], event["image"]) == ("not-lazy", other)
    assert clip.containers_left() == []
