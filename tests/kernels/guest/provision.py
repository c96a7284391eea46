"""``scripts/provision`` as Vagrant runs it in a new machine; it installs by the network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.kernels.guest.commands import DATA, run, wait_for

SOURCE = "/vagrant"
HOME = "/home/vagrant"
PROVISION_SECONDS = 5400
# What qemu's user network gives a guest (qemu-doc, "Using the user mode network stack").
ADDRESS, GATEWAY, NAMES = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"


def network() -> str:
    """An address, and somebody who knows names."""
    run("ip", "link", "set", "eth0", "up")
    run("ip", "address", "add", ADDRESS, "dev", "eth0")
    run("ip", "route", "add", "default", "via", GATEWAY)
    Path("/etc/resolv.conf").write_text(f"nameserver {NAMES}\n")
    shutil.copytree(f"{DATA}/source", SOURCE)
    Path(HOME).mkdir()
    return ""


def provision() -> str:
    """The script, to its end."""
    out = run(f"{SOURCE}/scripts/provision", seconds=PROVISION_SECONDS)
    (row,) = [line for line in out.splitlines() if "fetched by this container" in line]
    return " ".join(row.split())


def again() -> str:
    """A second time it changes nothing, and is quick."""
    out = run(f"{SOURCE}/scripts/provision", seconds=PROVISION_SECONDS)
    assert "Installing" not in out, out
    return ""


def ctr1() -> str:
    """What the README then says: ``vagrant ssh -c 'sudo clip-runc run ctr1'``."""
    out = run("sh", "-ec", f"cd {HOME} && clip-runc run ctr1")
    assert "says hello" in out, out
    return out.strip()


def configured() -> str:
    """containerd knows the handler and runs; the timer that tidies up is armed."""
    assert run("systemctl", "is-active", "containerd").strip() == "active"
    assert "/usr/local/bin/clip-runc" in run("containerd", "config", "dump")
    assert run("systemctl", "is-active", "clip-runc-gc.timer").strip() == "active"
    wait_for(lambda: json.loads(run("clipctl", "status", "--json"))["mode"] == "erofs", "the mode")
    return ""


CHECKS = (network, provision, ctr1, configured, again)
