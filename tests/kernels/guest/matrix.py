"""What has to work on every kernel and with every release's engines; nothing is left of it."""

from __future__ import annotations

import json
import os
import signal
import time

from tests.kernels.guest.commands import run, wait_for
from tests.kernels.guest.installed import (
    COMMAND,
    LAZY,
    PLAIN,
    RUNTIME,
    WANTED,
    cgroup,
    index,
    install,
    left,
    registry,
    status,
    write_bundle,
)
from tests.kernels.guest.reading import reader

KILLS = 4
MODE: list[str] = []
"""What doctor said that containers get."""


def doctor() -> str:
    """The layer mode that containers get here, and why others do not work."""
    findings = json.loads(run("clipctl", "doctor", "--json", check=False))
    found = {one["subject"]: one for one in findings}
    bad = [one for one in findings if one["level"] == "failure"]
    assert not bad, bad
    refused = [
        f"{name[5:]}: {one['remedy']}"
        for name, one in found.items()
        if name.startswith("mode ") and one["level"] != "ok"
    ]
    chosen = found["layer mode"]["text"]
    MODE.append(chosen.partition(",")[0])
    return "; ".join([chosen, *refused])


def by_hand() -> str:
    """A bundle, and a container of it that stays; its mode is the one that the kernel gets."""
    write_bundle("/root/bundle", "sleep", "100000")
    run(RUNTIME, "run", "--detach", "--bundle", "/root/bundle", "hand")
    assert run(RUNTIME, "exec", "hand", *COMMAND.split()) == WANTED
    found = status()
    assert [found["mode"]] == MODE, (found["mode"], MODE)
    groups = {cgroup(found[part]["pid"]) for part in ("supervisor", "server")}
    assert groups == {"/clip-runc"}, groups
    return f"mode {found['mode']}, clipd in {groups.pop()}"


def containerd() -> str:
    """This release's, as Debian configures it."""
    run("systemctl", "start", "containerd")
    wait_for(lambda: "Server:" in run("ctr", "version", check=False), "containerd answers")
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


def server() -> int:
    """The pid of a server that serves."""
    wait_for(lambda: status()["server"]["state"] == "serving", "a server serves")
    pid: int = status()["server"]["pid"]
    return pid


def kills() -> str:
    """The server killed under a reader: right bytes, nobody hangs."""
    with reader() as reading:
        wait_for(lambda: reading.rounds or reading.errors, "a read ends")
        for _ in range(KILLS):
            time.sleep(0.5)
            os.kill(server(), signal.SIGKILL)
        server()
        before = reading.rounds
        wait_for(lambda: reading.rounds >= before + 2, "reads go on")
    return (
        f"{KILLS} kills, {reading.rounds} reads, {reading.errors} failed, "
        f"longest {reading.longest:.1f} s"
    )


def teardown() -> str:
    """``delete``, ``gc``, ``stop``: nothing of ours is left."""
    run(RUNTIME, "delete", "--force", "hand")
    run("clipctl", "gc")
    run("clipctl", "stop")
    try:
        wait_for(lambda: not left(), "the end of everything", seconds=20)
    except AssertionError:
        raise AssertionError(f"left: {left()}") from None
    return "nothing left"


CHECKS = (install, registry, doctor, index, by_hand, containerd, podman, kills, teardown)
