"""``clip-runc`` in runc's place: what passes through, what is set up, what is torn down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.clip_machine import ClipMachine, mounts_below
from tests.integration.prerequisites import need

RUNC = shutil.which("runc", path=f"{os.environ.get('PATH')}:/usr/sbin") or "runc"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["list"],
        ["state", "nobody"],
        ["features"],
        ["events", "--stats", "nobody"],
        ["ps", "nobody"],
        ["pause", "nobody"],
        ["resume", "nobody"],
        ["checkpoint", "nobody"],
        ["checkpoint", "--help"],
        ["restore", "--bundle", "/nowhere", "nobody"],
        ["nonsense"],
        ["--no-such-flag"],
        ["create", "--help"],
        ["delete", "nobody"],
        ["spec", "--no-such-flag"],
    ],
    ids=" ".join,
)
def test_commands_pass_through(clip: ClipMachine, arguments: list[str]) -> None:
    """The same output, messages and exit code as runc's own."""
    ours = clip.runc(*arguments)
    theirs = clip.call([RUNC, "--root", clip.root, *arguments])
    assert ours.returncode == theirs.returncode
    # runc calls itself by the name it was started as; log lines carry the time
    assert ours.stdout.replace("clip-runc", "runc") == theirs.stdout
    assert _untimed(ours.stderr) == _untimed(theirs.stderr)


def _untimed(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("time=")] + [
        line.partition(" ")[2] for line in text.splitlines() if line.startswith("time=")
    ]


def test_ordinary_bundle_is_untouched(clip: ClipMachine) -> None:
    need("busybox")
    bundle = clip.directory / "ordinary"
    (bundle / "rootfs/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", bundle / "rootfs/bin/busybox")
    clip.runc("spec", "--bundle", bundle, check=True)
    args = ["/bin/busybox", "echo", "ordinary"]
    clip.edit(bundle, lambda spec: spec["process"].update(args=args, terminal=False))
    before = (bundle / "config.json").read_bytes()
    done = clip.runc("run", "--bundle", bundle, "ordinary")
    assert (done.returncode, done.stdout) == (0, "ordinary\n"), done.stderr
    assert (bundle / "config.json").read_bytes() == before
    assert not mounts_below(clip.run_dir)


def test_run_by_hand(clip: ClipMachine, busybox_ref: str) -> None:
    """``clipctl bundle``, then ``clip-runc run`` in the bundle: the image's own command."""
    bundle = clip.bundle(busybox_ref)
    before = (bundle / "config.json").read_bytes()
    done = clip.runc("run", "ctr1", cwd=bundle)
    assert (done.returncode, done.stdout) == (0, "hello from the image\n"), done.stderr
    assert (bundle / "config.json").read_bytes() == before
    assert clip.containers_left() == []


def test_bundle_has_the_words_of_the_image(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref)
    spec = json.loads((bundle / "config.json").read_text())
    process = spec["process"]
    assert process["args"] == ["/bin/sh", "-c", "echo $GREETING"]
    assert "GREETING=hello from the image" in process["env"]
    assert process["cwd"] == "/srv/work"
    assert (process["user"]["uid"], process["user"]["gid"]) == (1234, 50)
    assert spec["annotations"]["dev.clip-runc.image"] == busybox_ref
    assert "SIGINT" in spec["annotations"].values()


def test_create_start_exec_delete(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "sleep", "1000")
    before = (bundle / "config.json").read_bytes()
    # create's child inherits stdio; a pipe of ours would stay open as long as the container
    with (clip.directory / "out").open("w") as out:
        status = subprocess.run(
            [clip.runtime, "--root", clip.root, "create", "--bundle", bundle, "c1"],
            env={**os.environ, **clip.environ}, stdin=subprocess.DEVNULL,
            stdout=out, stderr=out, check=False,
        ).returncode  # fmt: skip
    assert status == 0, (clip.directory / "out").read_text()
    clip.runc("start", "c1", check=True)
    state = json.loads(clip.runc("state", "c1", check=True).stdout)
    assert state["status"] == "running"
    done = clip.runc("exec", "c1", "cat", "/srv/data/a", check=True)
    assert done.stdout == "one\n"
    assert clip.containers_left(), "a running container has its mount"
    clip.runc("kill", "c1", "KILL", check=True)
    _wait_stopped(clip, "c1")
    clip.runc("delete", "c1", check=True)
    assert (bundle / "config.json").read_bytes() == before
    assert clip.containers_left() == []


def _wait_stopped(clip: ClipMachine, name: str) -> None:
    end = time.monotonic() + 30
    while json.loads(clip.runc("state", name).stdout or '{"status": ""}')["status"] == "running":
        assert time.monotonic() < end
        time.sleep(0.05)


def _start_detached(clip: ClipMachine, bundle: Path, name: str, program: Path | str) -> None:
    with (clip.directory / f"out-{name}").open("w") as out:
        status = subprocess.run(
            [program, "--root", clip.root, "run", "--detach", "--bundle", bundle, name],
            env={**os.environ, **clip.environ}, stdin=subprocess.DEVNULL,
            stdout=out, stderr=out, check=False,
        ).returncode  # fmt: skip
    assert status == 0, (clip.directory / f"out-{name}").read_text()


def test_hook_tears_down_when_runc_itself_deletes(clip: ClipMachine, busybox_ref: str) -> None:
    """The poststop hook: whoever force-deletes with another runc binary also cleans up."""
    bundle = clip.bundle(busybox_ref, "sleep", "1000")
    _start_detached(clip, bundle, "c2", clip.runtime)
    assert clip.containers_left()
    clip.call([RUNC, "--root", clip.root, "delete", "--force", "c2"], check=True)
    assert clip.containers_left() == []


def test_force_delete_of_a_running_container(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "sleep", "1000")
    _start_detached(clip, bundle, "c3", clip.runtime)
    clip.runc("delete", "--force", "c3", check=True)
    assert clip.containers_left() == []
    assert clip.runc("delete", "--force", "c3").returncode == 0


SEEN = """\
#!/bin/sh
cat >/dev/null
ls -A {root} >{seen} 2>&1
ls -A {containers} >>{seen}
"""


def _recording(hook: Path, root: Path, containers: Path) -> Path:
    """Put in the place of ``hook`` one that lists a root filesystem and what there is of ours."""
    seen = hook.with_name("seen")
    hook.write_text(SEEN.format(root=root, containers=containers, seen=seen))
    hook.chmod(0o755)
    return seen


@pytest.mark.parametrize("ended", [True, False])
def test_delete_leaves_nothing_to_the_hook(
    clip: ClipMachine, busybox_ref: str, ended: bool
) -> None:
    """A container that has ended, and one that is to be killed."""
    bundle = clip.bundle(busybox_ref, "true" if ended else "sleep", "1000")
    _start_detached(clip, bundle, "c5", clip.runtime)
    if ended:
        _wait_stopped(clip, "c5")
    seen = _recording(clip.bin / "clip-runc-poststop", clip.root, clip.state / "containers")
    clip.runc("delete", *([] if ended else ["--force"]), "c5", check=True)
    assert "c5" not in seen.read_text(), "runc forgets before it runs the hook"
    assert seen.read_text().split() == [".trash"]
    assert clip.containers_left() == []


def test_hooks_of_others_see_the_root_filesystem(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "true")
    theirs = clip.directory / "theirs"
    clip.edit(bundle, lambda spec: spec.update(hooks={"poststop": [{"path": str(theirs)}]}))
    _start_detached(clip, bundle, "c6", clip.runtime)
    _wait_stopped(clip, "c6")
    (root,) = (clip.run_dir / "containers").glob("*/rootfs")
    seen = _recording(theirs, root, root)
    clip.runc("delete", "c6", check=True)
    assert "bin" in seen.read_text().split()
    assert clip.containers_left() == []


def test_what_runc_refuses_to_delete_lives_on(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "sleep", "1000")
    _start_detached(clip, bundle, "c7", clip.runtime)
    for arguments in (["c7"], ["--force", "--no-such", "c7"], ["--force", "c7", "c8"]):
        assert clip.runc("delete", *arguments).returncode != 0
        assert json.loads(clip.runc("state", "c7", check=True).stdout)["status"] == "running"
        assert clip.runc("exec", "c7", "true").returncode == 0
    clip.runc("delete", "--force", "c7", check=True)
    assert clip.containers_left() == []


def test_gc_after_a_container_lost_its_runc_state(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "sleep", "1000")
    _start_detached(clip, bundle, "c4", clip.runtime)
    pid = json.loads(clip.runc("state", "c4", check=True).stdout)["pid"]
    os.kill(pid, 9)
    shutil.rmtree(clip.root / "c4")
    clip.ctl("gc", check=True)
    assert clip.containers_left() == []


def test_installed_under_the_name_runc(clip: ClipMachine, busybox_ref: str) -> None:
    """First in PATH as ``runc``: the real one is found, not ourselves again."""
    impostor = clip.directory / "path"
    impostor.mkdir()
    shutil.copy(clip.runtime, impostor / "runc")
    path = {"PATH": f"{impostor}:{os.environ.get('PATH')}:/usr/sbin"}
    done = clip.call(["runc", "--version"], environ=path, seconds=10)
    assert done.stdout == clip.call([RUNC, "--version"]).stdout
    bundle = clip.bundle(busybox_ref)
    done = clip.call(
        ["runc", "--root", clip.root, "run", "--bundle", bundle, "c5"], environ=path, seconds=30
    )
    assert done.stdout == "hello from the image\n", done.stderr


def test_another_runtime_by_configuration(
    clip_with: Callable[..., ClipMachine], busybox_ref: str
) -> None:
    need("crun")
    machine = clip_with(runtime="crun", image_linger=300)
    assert machine.runc("--version").stdout.startswith("crun version")
    bundle = machine.bundle(busybox_ref)
    # clipd and the image's mount come from the first, in the namespace of all
    machine.runc("run", "--bundle", bundle, "c6", environ={"CLIP_RUNC_RUNTIME": RUNC}, check=True)
    command: list[Path | str] = [machine.runtime, "--root", machine.root, "run", "--bundle", bundle]
    done = machine.call([*_without_unified_cgroups(), *command, "c7"])
    assert (done.returncode, done.stdout) == (0, "hello from the image\n"), done.stderr


def _without_unified_cgroups() -> list[Path | str]:
    """crun refuses cgroup v1 with controllers in a v2 beside it: hide the latter."""
    unified = Path("/sys/fs/cgroup/unified")
    if not (unified / "cgroup.controllers").exists():
        return []
    script = f'umount {unified} && exec "$@"'
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh"]


def test_clipctl_run_in_one_go(clip: ClipMachine, debian_ref: str) -> None:
    """Index, bundle, container, and nothing of it left; the container's exit code is ours."""
    done = clip.ctl("run", "--rm", debian_ref, "hello")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"hello": "clip-runc"}
    done = clip.ctl("run", "--rm", debian_ref, "sh", "-c", "exit 7")
    assert done.returncode == 7
    assert clip.containers_left() == []
    assert not list((clip.state / "bundles").glob("*"))


def test_setuid_needs_nosuid_off(clip_with: Callable[..., ClipMachine], busybox_ref: str) -> None:
    machine = clip_with()
    bundle = machine.bundle(busybox_ref, "grep", " / / ", "/proc/self/mountinfo")
    assert "nosuid" in machine.runc("run", "--bundle", bundle, "c7", check=True).stdout
    machine.edit(bundle, lambda spec: spec["annotations"].update({"dev.clip-runc.nosuid": "false"}))
    assert "nosuid" not in machine.runc("run", "--bundle", bundle, "c8", check=True).stdout


def test_creates_in_parallel(clip: ClipMachine, busybox_ref: str) -> None:
    """Eight at once of one image that is not mounted yet."""
    bundles = [clip.bundle(busybox_ref, name=f"b{number}") for number in range(8)]
    running = [
        subprocess.Popen(
            [clip.runtime, "--root", clip.root, "run", "--bundle", bundle, f"p{number}"],
            env={**os.environ, **clip.environ}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number, bundle in enumerate(bundles)
    ]  # fmt: skip
    for process in running:
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "hello from the image\n"), errors
    assert clip.containers_left() == []


def test_checkpoint_restore_is_set_up(clip: ClipMachine, busybox_ref: str) -> None:
    """Without criu runc refuses to restore; the bundle must come out as it went in."""
    bundle = clip.bundle(busybox_ref)
    before = (bundle / "config.json").read_bytes()
    done = clip.runc("restore", "--bundle", bundle, "--image-path", clip.directory, "r1")
    assert done.returncode != 0
    assert (bundle / "config.json").read_bytes() == before
