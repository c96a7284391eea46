"""A machine that boots again with containers that are to be there then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.kernels.guest.commands import run, wait_for
from tests.kernels.guest.installed import (
    BIG,
    COMMAND,
    LAZY,
    PLAIN,
    RUNTIME,
    WANTED,
    index,
    install,
    registry,
    status,
    units,
    write_bundle,
)
from tests.kernels.guest.reading import expected

BOOTED = Path("/var/lib/clip-test-booted")
# As an operator would write it; a container that was there when the power went is no obstacle.
UNIT = f"""\
[Unit]
Description=a container of clip-runc
After=test-registry.service clipd.service

[Service]
ExecStartPre=-{RUNTIME} delete --force served
ExecStart={RUNTIME} run --bundle /var/lib/served served
ExecStop={RUNTIME} kill served KILL
Restart=always

[Install]
WantedBy=multi-user.target
"""
PODMAN = ("podman", "--runtime", "clip-runc")


def unit() -> str:
    """A service whose process is ``clip-runc run``; restarted when its container dies."""
    write_bundle("/var/lib/served", "sleep", "100000")
    Path("/etc/systemd/system/served.service").write_text(UNIT)
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", "served.service")
    wait_for(lambda: reads(RUNTIME, "exec", "served"), "the service's container runs")
    before = pid("served")
    run(RUNTIME, "kill", "served", "KILL")
    wait_for(lambda: pid("served") not in (0, before), "systemd starts it again")
    wait_for(lambda: reads(RUNTIME, "exec", "served"), "its container runs again")
    return ""


def pid(container: str) -> int:
    """Of a container's process; 0 where there is none."""
    text = run(RUNTIME, "state", container, check=False)
    found: int = json.loads(text)["pid"] if text else 0
    return found


def reads(*command: str) -> bool:
    """Does the container read what is right?"""
    return run(*command, *COMMAND.split(), check=False) == WANTED


def podman_always() -> str:
    """``--restart=always``, which podman-restart.service keeps over a boot."""
    run("systemctl", "enable", "podman-restart.service")
    run(
        *PODMAN, "run", "--detach", "--name=always", "--restart=always", "--network=none",
        "--tls-verify=false", "--annotation", f"dev.clip-runc.image={LAZY}", PLAIN,
        "sleep", "100000",
    )  # fmt: skip
    assert reads("podman", "exec", "always")
    # podman would take a kill of its own for the end that its user wants
    os.kill(int(run("podman", "inspect", "--format={{.State.Pid}}", "always")), signal.SIGKILL)
    wait_for(lambda: reads("podman", "exec", "always"), "podman starts it again")
    return ""


def containerd_restarts() -> str:
    """containerd stopped and started: its container stays and reads on, is ended and gone."""
    run("systemctl", "start", "containerd")
    wait_for(lambda: "Server:" in run("ctr", "version", check=False), "containerd answers")
    run("ctr", "image", "pull", "--plain-http", PLAIN)
    run(
        "ctr", "run", "--detach", "--runc-binary", RUNTIME,
        "--annotation", f"dev.clip-runc.image={LAZY}", PLAIN, "stays", "sleep", "100000",
    )  # fmt: skip
    run("systemctl", "restart", "containerd")
    wait_for(lambda: "Server:" in run("ctr", "version", check=False), "containerd answers again")
    script = ("ctr", "task", "exec", "--exec-id", "one", "stays", "sha256sum", f"/{BIG}")
    assert run(*script).split()[0] == expected("team/lazy")[BIG]
    run("ctr", "task", "kill", "--signal", "KILL", "stays")
    wait_for(lambda: "STOPPED" in run("ctr", "task", "ls"), "the end of the task")
    run("ctr", "task", "rm", "stays")
    run("ctr", "container", "rm", "stays")
    run("systemctl", "stop", "containerd")
    return ""


def reboot() -> str:
    """An orderly one; the checks after it follow."""
    run("systemctl", "enable", "test-registry.service")
    BOOTED.touch()
    subprocess.run(["systemctl", "reboot"], check=True)
    wait_for(lambda: False, "the machine goes down")
    return ""


def after_reboot() -> str:
    """Both containers are there, and what they read is right."""
    wait_for(lambda: reads(RUNTIME, "exec", "served"), "the service's container")
    wait_for(lambda: reads("podman", "exec", "always"), "podman's container")
    for command in ((RUNTIME, "exec", "served"), ("podman", "exec", "always")):
        assert run(*command, "sha256sum", f"/{BIG}").split()[0] == expected("team/lazy")[BIG]
    unit = run("systemctl", "show", "--property=MainPID", "--value", "clipd.service").strip()
    assert str(status()["supervisor"]["pid"]) == unit
    run("clipctl", "gc")
    assert reads(RUNTIME, "exec", "served") and reads("podman", "exec", "always")
    return ""


def stopped() -> str:
    """What was made in the boot before goes as if it had been made in this one."""
    run("systemctl", "disable", "--now", "served.service")
    run("podman", "rm", "--force", "--time=0", "always")
    run("clipctl", "gc")
    names = [path.name for path in Path("/var/lib/clip/containers").glob("[!.]*")]
    assert not names, names
    return ""


AGAIN = BOOTED.exists()
BEFORE = (install, units, registry, index, unit, podman_always, containerd_restarts, reboot)
CHECKS = (after_reboot, stopped) if AGAIN else BEFORE
