"""The shim is runc: its process, descriptors, pipes and exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.clip_machine import ClipMachine
from tests.integration.prerequisites import need

RUNC = shutil.which("runc", path=f"{os.environ.get('PATH')}:/usr/sbin") or "runc"


def popen(clip: ClipMachine, *arguments: str | Path, **options: object) -> subprocess.Popen[bytes]:
    environ = {**os.environ, **clip.environ}
    command = [clip.runtime, "--root", clip.root, *arguments]
    return subprocess.Popen(command, env=environ, **options)  # type: ignore[call-overload,no-any-return]


def test_run_becomes_runc(clip: ClipMachine, busybox_ref: str) -> None:
    """One process from the caller's fork to the container's end, and its exit code."""
    bundle = clip.bundle(busybox_ref, "/bin/sh", "-c", "echo up; read line; exit 42")
    with popen(clip, "run", "--bundle", bundle, "c1", stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        program = Path(f"/proc/{process.pid}/exe").resolve().name
        children = children_of(process.pid)
        init = json.loads(clip.runc("state", "c1").stdout)["pid"]
        alone = no_process_of_ours(clip)
        process.communicate(b"\n", timeout=20)
    assert program == "runc"
    assert children == [init]
    assert alone
    assert process.returncode == 42
    assert clip.containers_left() == []


SHOW_MODULES = """import os, posix, sys
def shown(path, *_, execve=posix.execve):
    ours = [m for n, m in sys.modules.items() if n.startswith("clip_runc")]
    stray = [m.__name__ for m in ours if m.__spec__ is not None]
    with open(os.environ["SHOWN"], "w") as file:
        print(len(ours), "subprocess" in sys.modules, *stray, file=file)
    execve(path, *_)
posix.execve = shown
"""


def test_a_warm_create_comes_out_of_one_file(clip: ClipMachine, busybox_ref: str) -> None:
    """Every module of ours from the snapshot, and no process forked: clipd watches."""
    need("strace")
    bundle = clip.bundle(busybox_ref, "/bin/sleep", "60")
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)  # not the test's pipes
    warm = [clip.runtime, "--root", clip.root, "run", "--bundle", bundle, "--detach", "warm"]
    subprocess.run(warm, env={**os.environ, **clip.environ}, check=True, timeout=60, **quiet)
    shown, calls = clip.directory / "modules", clip.directory / "calls"
    launcher = clip.bin / "showing"
    launcher.write_text(clip.runtime.read_text().replace("import sys\n", SHOW_MODULES, 1))
    launcher.chmod(0o755)
    options = ["-o", calls, "-e", "trace=fork,vfork,clone,clone3,execve"]
    command = [launcher, "--root", clip.root, "create", "--bundle", bundle, "c1"]
    environ = {**os.environ, **clip.environ, "SHOWN": str(shown)}
    with (clip.directory / "out").open("w") as out:
        subprocess.run(["strace", *options, *command], env=environ, check=True, timeout=60,
                       stdin=subprocess.DEVNULL, stdout=out, stderr=out)  # fmt: skip
    clip.runc("delete", "--force", "warm", check=True)
    clip.runc("delete", "--force", "c1", check=True)
    count, *rest = shown.read_text().split()
    assert rest == ["False"]
    assert 35 < int(count) < 45
    before_runc = calls.read_text().partition('/runc", [')[0].splitlines()[:-1]
    assert [line for line in before_runc if not line.startswith("execve(")] == []


def children_of(pid: int) -> list[int]:
    """The children of every thread."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def no_process_of_ours(clip: ClipMachine) -> bool:
    """No Python waits beside a running container (clipd's processes are nobody's children)."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        shims = [
            entry for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and str(clip.runtime) in command_line(entry)
        ]  # fmt: skip
        if not shims:
            return True
        time.sleep(0.05)
    return False


def command_line(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_a_signal_reaches_the_container(clip: ClipMachine, busybox_ref: str) -> None:
    script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"
    bundle = clip.bundle(busybox_ref, "/bin/sh", "-c", script)
    with popen(
        clip, "run", "--bundle", bundle, "c1", stdin=subprocess.DEVNULL, stdout=-1
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 9
    assert clip.containers_left() == []


def test_the_callers_pipes_end_with_create(clip: ClipMachine, busybox_ref: str) -> None:
    """Only the container holds them; the watcher and clipd do not."""
    bundle = clip.bundle(busybox_ref, "/bin/sh", "-c", "exec >&- 2>&-; exec sleep 60")
    started = time.monotonic()
    process = popen(
        clip, "run", "--detach", "--bundle", bundle, "c1", stdin=subprocess.DEVNULL, stdout=-1
    )
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b"")
    assert time.monotonic() - started < 30
    clip.runc("delete", "--force", "c1", check=True)


def test_a_failed_create_ends_the_callers_pipes(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "/nope")
    process = popen(clip, "create", "--bundle", bundle, "c1", stdin=-1, stdout=-1, stderr=-1)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.count(b"\n") == 1


def test_preserved_descriptors(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/sh", "-c", "cat <&3; ls /proc/self/fd | wc -l")
    read, write = os.pipe()
    os.write(write, b"handed on\n")
    os.close(write)
    keep = 3
    command = (
        f"exec {keep}<&{read}; exec {clip.runtime} --root {clip.root} "
        f"run --preserve-fds 1 --bundle {bundle} c1"
    )
    done = subprocess.run(
        ["bash", "-c", command], pass_fds=[read], env={**os.environ, **clip.environ},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(read)
    # 0, 1, 2, 3, and the directory that ls reads
    assert done.stdout.split("\n")[:2] == ["handed on", "5"], done.stderr


def test_closed_stdin(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/echo", "fine")
    script = f"exec {clip.runtime} --root {clip.root} run --bundle {bundle} c1 <&-"
    done = clip.call(["sh", "-c", script])
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert clip.containers_left() == []


def test_signals_of_the_container_are_defaults(clip: ClipMachine, busybox_ref: str) -> None:
    """Python ignores SIGPIPE; a container that inherits that breaks ``yes | head``."""
    bundle = clip.bundle(busybox_ref, "/bin/grep", "-e", "SigIgn", "/proc/self/status")
    done = clip.runc("run", "--bundle", bundle, "c1", check=True)
    assert int(done.stdout.split()[1], 16) == 0


def test_the_log_has_one_line_and_stderr_none(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/true")
    log = clip.directory / "log"
    options = ["--log", str(log), "--log-format", "json"]
    done = clip.runc(*options, "run", "--bundle", bundle, "c1", check=True)
    assert (done.stdout, done.stderr) == ("", "")
    (line,) = [json.loads(text) for text in log.read_text().splitlines()]
    assert line["level"] == "info"
    assert line["image"] == busybox_ref
    assert line["mode"] in ("erofs", "loop", "tree")
    assert float(line["mount_ms"]) > 0


@pytest.mark.parametrize(
    "arguments",
    [
        "list -q", "state nope", "--version", "-v", "help", "create", "create a b", "run",
        "delete", "delete nope", "delete --force nope", "kill nope", "--bad", "create --bad x",
        "--log-format yaml list", "--root / list", "--debug delete nope", "restore nope",
        "create --bundle /nonexistent x", "--log-format json state nope", "features --bad", "start",
    ],
)  # fmt: skip
def test_words_and_codes_of_runc(clip: ClipMachine, arguments: str) -> None:
    """Byte for byte but the time."""
    said = []
    for program in (clip.runtime, Path(RUNC)):
        root = [] if "--root" in arguments else ["--root", clip.root]
        done = clip.call([program, *root, *arguments.split()])
        said.append((done.returncode, done.stdout, without_time(done.stderr)))
    assert said[0] == said[1]


def without_time(text: str) -> list[str]:
    if text.startswith("{"):
        return [word for word in text.split(",") if not word.startswith('"time"')]
    return re.sub(r'^time="[^"]*" ', "", text, flags=re.MULTILINE).split(" ")


def test_bundles_of_others_are_not_touched(clip: ClipMachine) -> None:
    need("busybox")
    bundle = clip.directory / "ordinary"
    (bundle / "rootfs/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", bundle / "rootfs/bin/sh")
    clip.runc("spec", "--bundle", bundle, check=True)
    change: Callable[[dict[str, dict[str, object]]], object] = lambda spec: spec["process"].update(  # noqa: E731
        terminal=False, args=["/bin/sh", "-c", "exit 5"]
    )
    clip.edit(bundle, change)
    config = bundle / "config.json"
    before = (config.read_bytes(), config.stat().st_ino, config.stat().st_mtime_ns)
    assert clip.runc("run", "--bundle", bundle, "c1").returncode == 5
    assert (config.read_bytes(), config.stat().st_ino, config.stat().st_mtime_ns) == before
    config.write_text("not JSON")
    ours = clip.runc("create", "--bundle", bundle, "c1")
    theirs = clip.call([RUNC, "--root", clip.root, "create", "--bundle", bundle, "c1"])
    assert ours.stderr.partition(" ")[2] == theirs.stderr.partition(" ")[2]
    assert not clip.run_dir.exists()
