"""What the runtime gets from its caller, through the shim and without it: the same."""

from __future__ import annotations

import array
import json
import os
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.clip_machine import ClipMachine
from tests.integration.test_runtime_exec import RUNC, without_time

# A runtime that says how it was called, and makes no container.
SHOW = """\
#!/usr/bin/python3 -IS
import os, sys
def read(name):
    with open(f"/proc/self/{name}", "rb") as file:
        return file.read()
given = [line for line in read("environ").split(b"\\0") if not line.startswith(b"SHOWN=")]
kinds = ("Sig", "Shd", "Cap", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups", "Threads", "Umask")
status = [line for line in read("status").decode().splitlines()
          if line.startswith(kinds) and not line.startswith("SigQ")]  # all of root's processes
held = []
for number in sorted(map(int, os.listdir("/proc/self/fd"))):
    try:
        held.append((number, os.readlink(f"/proc/self/fd/{number}")))
    except OSError:  # the one that listed them
        continue
fields = read("stat").rpartition(b")")[2].split()
text = "\\n".join(map(str, [
    *status, sys.argv[1:], os.getcwd(), held, *sorted(given), fields[2], fields[3], fields[16],
    *read("limits").splitlines(), *read("cgroup").splitlines(), read("oom_score_adj"), os.getpid(),
]))
with open(os.environ["SHOWN"], "w", errors="surrogateescape") as file:
    file.write(text)
"""


def prepare_child() -> None:
    os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_CORE, (4096, 8192))
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 1024))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    os.nice(3)


@pytest.mark.parametrize("command", ["create", "run", "restore", "delete", "checkpoint", "state"])
def test_nothing_of_the_caller_changes(clip: ClipMachine, busybox_ref: str, command: str) -> None:
    """umask, limits, signals, environment, descriptors, directory, group, session, cgroup, pid."""
    bundle = clip.bundle(busybox_ref, "/bin/true")
    fake = clip.directory / "fake/runc"  # a wrapper is told that it came from us
    fake.parent.mkdir()
    fake.write_text(SHOW)
    fake.chmod(0o755)
    given = ["--bundle", str(bundle)] if command in ("create", "run", "restore") else []
    arguments = ["--root", str(clip.root), command, *given, "c1"]
    read, write = os.pipe()
    said = []
    for program in (clip.runtime, fake):
        shown = clip.directory / "shown"
        with subprocess.Popen(
            [program, *arguments], cwd=bundle, pass_fds=[read, write],
            preexec_fn=prepare_child,  # noqa: PLW1509  # this process has one thread
            start_new_session=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **clip.environ, "CLIP_RUNC_RUNTIME": str(fake), "LISTEN_FDS": "1",
                 "SHOWN": str(shown), "ODD": "a\nb \udcff"},
        ) as process:  # fmt: skip
            assert process.wait(60) == 0
        text = shown.read_text(errors="surrogateescape")
        assert text.split()[-1] == str(process.pid)
        said.append(text.replace(str(process.pid), "PID"))
    os.close(read)
    os.close(write)
    assert said[0] == said[1]
    assert "Umask:\t0027" in said[0] and "LISTEN_FDS=1" in said[0]
    end = time.monotonic() + 30
    while clip.containers_left() and time.monotonic() < end:
        time.sleep(0.05)
    assert clip.containers_left() == []


def test_activation_by_a_socket(clip: ClipMachine, busybox_ref: str) -> None:
    """LISTEN_FDS: the descriptors and the variables reach the container as runc hands them on."""
    bundle = clip.bundle(
        busybox_ref, "/bin/sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; read line <&3; echo $line"
    )
    read, write = os.pipe()
    os.write(write, b"through\n")
    os.close(write)
    script = (
        f"exec 3<&{read}; LISTEN_PID=$$ LISTEN_FDS=1 "
        f"exec {clip.runtime} --root {clip.root} run --bundle {bundle} c1"
    )
    done = subprocess.run(
        ["bash", "-c", script], pass_fds=[read], env={**os.environ, **clip.environ},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(read)
    assert (done.returncode, done.stdout) == (0, "1 1\nthrough\n"), done.stderr


def test_a_terminal_over_the_console_socket(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/sh", "-c", "tty; read line; echo got $line; exit 6")
    clip.edit(bundle, lambda spec: spec["process"].update(terminal=True))
    path = clip.directory / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(60)
        arguments = ["run", "--detach", "--console-socket", path, "--bundle", bundle, "c1"]
        with subprocess.Popen(
            [clip.runtime, "--root", clip.root, *arguments], env={**os.environ, **clip.environ},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            connection, _ = listener.accept()
            with connection:
                ancillary = connection.recvmsg(4096, socket.CMSG_SPACE(4))[1]
            out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b""), errors
    master = array.array("i", ancillary[0][2][:4])[0]
    seen = b""
    while b"\n" not in seen:
        seen += os.read(master, 4096)
    assert seen == b"/dev/pts/0\r\n"
    os.write(master, b"words\n")
    try:
        while piece := os.read(master, 4096):
            seen += piece
    except OSError:  # EIO: the container has ended
        os.close(master)
    assert seen.split() == b"/dev/pts/0 words got words".split()
    clip.runc("delete", "--force", "c1", check=True)
    assert clip.containers_left() == []


@pytest.mark.parametrize(
    ("mapping", "why"),
    [(["--map-root-user"], "CAP_SYS_ADMIN"), ([], "user 65534 may mount nothing")],
)
def test_who_cannot_mount(
    clip: ClipMachine, busybox_ref: str, mapping: list[str], why: str
) -> None:
    """Root of a namespace without mounts of its own, and nobody in particular.

    runc's bytes, but for a bundle that names our image: the reason, and nothing is left.
    """
    bundle = clip.bundle(busybox_ref, "/bin/true")
    before = (bundle / "config.json").read_bytes()
    inside = ["unshare", "--user", *mapping]
    options = ["--root", f"{clip.directory}/rootless"]
    for arguments in (
        ["state", "nope"], ["list"], ["--version"], ["delete", "--force", "nope"],
    ):  # fmt: skip
        said = []
        for program in (str(clip.runtime), RUNC):
            done = clip.call([*inside, program, *options, *arguments])
            said.append((done.returncode, done.stdout, without_time(done.stderr)))
        assert said[0] == said[1], arguments
    for command in ("create", "run"):
        done = clip.call([*inside, clip.runtime, *options, command, "--bundle", bundle, "c1"])
        assert done.returncode == 1 and done.stdout == ""
        assert why in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert (bundle / "config.json").read_bytes() == before
    assert clip.containers_left() == []


def test_keep(clip: ClipMachine, busybox_ref: str) -> None:
    """``run --keep``: the container stays until it is deleted, and so does its root."""
    bundle = clip.bundle(busybox_ref, "/bin/sh", "-c", "exit 3")
    options = clip.runc("run", "--help").stdout
    done = clip.runc("run", "--keep", "--bundle", bundle, "c1")
    if "--keep" not in options:
        assert done.returncode != 0
        return
    assert done.returncode == 3, done.stderr
    assert json.loads(clip.runc("state", "c1", check=True).stdout)["status"] == "stopped"
    (upper,) = clip.state.glob("containers/c1-*/upper")
    assert Path(upper).is_dir()
    clip.runc("delete", "c1", check=True)
    assert clip.containers_left() == []


def test_events_ps_pause_and_update(clip: ClipMachine, busybox_ref: str) -> None:
    """The commands about a container that runs, each with runc's own bytes."""
    bundle = clip.bundle(busybox_ref, "/bin/sleep", "60")
    log = clip.directory / "out"
    start = f"exec {clip.runtime} --root {clip.root} run -d -b {bundle} c1 </dev/null >{log} 2>&1"
    clip.call(["sh", "-c", start], check=True)
    for arguments in (
        ["ps", "--format", "json", "c1"],
        ["list", "--format", "json"],
        ["state", "c1"],
    ):
        said = [
            clip.call([program, "--root", clip.root, *arguments], check=True).stdout
            for program in (clip.runtime, RUNC)
        ]
        assert said[0] == said[1]
    stats = json.loads(clip.runc("events", "--stats", "c1", check=True).stdout)
    assert stats["type"] == "stats" and stats["data"]["pids"]["current"] == 1
    clip.runc("pause", "c1", check=True)
    assert json.loads(clip.runc("state", "c1").stdout)["status"] == "paused"
    clip.runc("resume", "c1", check=True)
    clip.runc("update", "--pids-limit", "20", "c1", check=True)
    clip.runc("kill", "c1", "KILL", check=True)
    clip.runc("delete", "--force", "c1", check=True)
    assert clip.containers_left() == []
