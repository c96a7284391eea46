"""Runs inside the guest, by its own Python and with nothing but that: installs, tries, reports.

A JSON object a line goes to the file that is named: check, ok, text, seconds; at last ``done``.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DATA = "/clip-test"
VENV = "/opt/clip-runc/venv"
HOST = "127.0.0.1:5000"
LAZY = f"{HOST}/team/lazy:1"
PLAIN = f"{HOST}/team/plain:1"
RUNTIME = "/usr/local/bin/clip-runc"
BIG = "srv/big"
COMMAND = "cat /srv/data/a"
WANTED = "one\n"
REGISTRY = """\
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: /var/lib/clip-test-registry}}
http: {addr: "127.0.0.1:5000", secret: none}
"""
KILLS = 4
# An emulated machine on a busy one is slow; a hang is still told from that.
SECONDS = 240
LONGEST = 60.0

Check = Callable[[], str]


def run(*command: str, seconds: float = SECONDS, check: bool = True) -> str:
    """What a command prints; raises ``AssertionError`` with all of it where it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
        check=False,
    )  # fmt: skip
    if check and done.returncode:
        text = f"{' '.join(command)}: {done.returncode}: {done.stdout}{done.stderr}"
        raise AssertionError(text[-2000:])
    return done.stdout


def install() -> str:
    """The wheel by pip, then the launcher: what the README says."""
    (wheel,) = glob.glob(f"{DATA}/*.whl")
    run(f"{VENV}/bin/pip", "install", "--quiet", "--no-index", "--no-deps", wheel)
    run(f"{VENV}/bin/clipctl", "install", "--podman", "--systemd")
    return run("clipctl", "--version").strip()


def registry() -> str:
    """docker-registry, whose blobs came on the disk."""
    run("cp", "-r", f"{DATA}/registry", "/var/lib/clip-test-registry")
    with open("/run/registry.yml", "w") as file:
        file.write(REGISTRY)
    run("systemd-run", "--unit=test-registry", "docker-registry", "serve", "/run/registry.yml")
    for _ in range(600):
        if run("ss", "--no-header", "--listening", "--numeric", "sport = :5000"):
            return "serves"
        time.sleep(0.1)
    raise AssertionError("docker-registry does not listen")


def doctor() -> str:
    """Which layer modes work here; a doctor that finds nothing wrong exits with 0 or 1."""
    findings = json.loads(run("clipctl", "doctor", "--json", check=False))
    bad = [one for one in findings if one["level"] == "fail"]
    assert not bad, bad
    modes = [one for one in findings if one["subject"].startswith("mode ")]
    return ", ".join(one["subject"][5:] for one in modes if one["level"] == "ok") + " work"


def index() -> str:
    """Without keeping a byte: what follows is fetched as it is read."""
    run("clipctl", "index", "--quiet", "--no-store", LAZY)
    return ""


def by_hand() -> str:
    """A bundle, and a container of it that stays; its mode is the one that the kernel gets."""
    run("clipctl", "bundle", LAZY, "/root/bundle")
    with open("/root/bundle/config.json") as file:
        config = json.load(file)
    config["process"]["args"] = ["sleep", "100000"]
    with open("/root/bundle/config.json", "w") as file:
        json.dump(config, file)
    run(RUNTIME, "run", "--detach", "--bundle", "/root/bundle", "hand")
    assert run(RUNTIME, "exec", "hand", *COMMAND.split()) == WANTED
    status = json.loads(run("clipctl", "status", "--json"))
    group = run(RUNTIME, "exec", "hand", "cat", "/proc/self/cgroup").strip()
    return f"{status['mode']}, cgroup {group.partition(':')[2]}"


def containerd() -> str:
    """This release's, as Debian configures it."""
    run("systemctl", "start", "containerd")
    for _ in range(300):
        if "Version" in run("ctr", "version", check=False):
            break
        time.sleep(0.2)
    run("ctr", "image", "pull", "--plain-http", PLAIN)
    out = run(
        "ctr", "run", "--rm", "--runc-binary", RUNTIME,
        "--annotation", f"dev.clip-runc.image={LAZY}", PLAIN, "by-ctr", *COMMAND.split(),
    )  # fmt: skip
    assert out == WANTED, out
    version = run("containerd", "--version").split()[2]
    run("systemctl", "stop", "containerd")
    return version


def podman() -> str:
    """This release's, with the systemd cgroup manager, by the name that install gave it."""
    out = run(
        "podman", "--runtime", "clip-runc", "run", "--rm", "--network=none", "--tls-verify=false",
        "--annotation", f"dev.clip-runc.image={LAZY}", PLAIN, *COMMAND.split(),
    )  # fmt: skip
    assert out == WANTED, out
    return run("podman", "--version").split()[-1]


class Reader(threading.Thread):
    """Reads a file again and again, past the cache; a wrong byte is fatal, an error is counted."""

    def __init__(self, path: str, wanted: str) -> None:
        super().__init__(daemon=True)
        self._path, self._wanted = path, wanted
        self.rounds, self.errors, self.wrong, self.longest = 0, 0, 0, 0.0
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.is_set():
            begun = time.monotonic()
            try:
                found = read_hash(self._path)
            except OSError:
                self.errors += 1
            else:
                self.rounds += 1
                self.wrong += found != self._wanted
            self.longest = max(self.longest, time.monotonic() - begun)

    def finish(self) -> None:
        self._end.set()
        self.join(LONGEST)
        assert not self.is_alive(), "a read hangs"


def read_hash(path: str) -> str:
    """The SHA-256 of a file; the pages that it left in the cache are dropped."""
    digest = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY)
    try:
        while data := os.read(fd, 1 << 16):
            digest.update(data)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    return digest.hexdigest()


@contextmanager
def reader() -> Iterator[Reader]:
    """A reader of the container's big file."""
    (rootfs,) = glob.glob("/run/clip/containers/*/rootfs")
    with open(f"{DATA}/expected.json") as file:
        wanted = json.load(file)[BIG]
    thread = Reader(f"{rootfs}/{BIG}", wanted)
    thread.start()
    try:
        yield thread
    finally:
        thread.finish()
    assert not thread.wrong, f"{thread.wrong} reads of wrong bytes"
    assert thread.rounds, f"no read came to its end, {thread.errors} failed"


def server() -> int:
    """The pid of a server that serves."""
    for _ in range(600):
        found: dict[str, Any] = json.loads(run("clipctl", "status", "--json"))["server"]
        if found["state"] == "serving":
            pid: int = found["pid"]
            return pid
        time.sleep(0.1)
    raise AssertionError("no server serves")


def kills() -> str:
    """The server killed under a reader: right bytes, nobody hangs."""
    with reader() as reading:
        while not reading.rounds and not reading.errors:
            time.sleep(0.1)
        for _ in range(KILLS):
            time.sleep(0.5)
            os.kill(server(), signal.SIGKILL)
        server()
        before = reading.rounds
        while reading.rounds < before + 2:
            time.sleep(0.1)
    return (
        f"{KILLS} kills, {reading.rounds} reads, {reading.errors} failed, "
        f"longest {reading.longest:.1f} s"
    )


def teardown() -> str:
    """``delete``, ``gc``, ``stop``: nothing of ours is left."""
    run(RUNTIME, "delete", "--force", "hand")
    run("clipctl", "gc")
    run("clipctl", "stop")
    found = left()
    for _ in range(100):
        if not found:
            return "nothing left"
        time.sleep(0.1)
        found = left()
    raise AssertionError(f"left: {found}")


def left() -> list[str]:
    """Mounts, loop devices, processes, directories of containers."""
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split()[4] for line in file]
    found = [f"mount {one}" for one in mounts if one.startswith(("/run/clip/", "/var/lib/clip/"))]
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        try:
            with open(path) as file:
                found.append(f"loop over {file.read().strip()}")
        except OSError:
            continue  # it went in this moment
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path) as file:
                line = file.read().replace("\0", " ")
        except OSError:
            continue
        if "clip_runc/" in line or "clip-runc" in line:
            found.append(f"process {line[:100]}")
    found += glob.glob("/var/lib/clip/containers/*") + glob.glob("/run/clip/leases/*/*")
    return found


CHECKS: tuple[Check, ...] = (
    install, registry, doctor, index, by_hand, containerd, podman, kills, teardown,
)  # fmt: skip


def main() -> None:
    """All of them; one that fails does not stop those that follow."""
    with open(sys.argv[1], "w", buffering=1) as out:

        def report(**values: object) -> None:
            out.write(json.dumps(values) + "\n")

        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        report(check="boot", ok=True, text=os.uname().release, seconds=round(boot, 1))
        for check in CHECKS:
            begun = time.monotonic()
            try:
                text, ok = check(), True
            except Exception as error:
                text, ok = f"{type(error).__name__}: {error}", False
            seconds = round(time.monotonic() - begun, 1)
            report(check=check.__name__, ok=ok, text=text, seconds=seconds)
        report(check="done")
        out.flush()
    subprocess.run(["systemctl", "poweroff", "--force", "--force"], check=False)


if __name__ == "__main__":
    main()
