"""AppArmor, which Debian enables: the engines' profiles confine what runs over our roots."""

from __future__ import annotations

from pathlib import Path

from tests.kernels.guest.commands import run, wait_for
from tests.kernels.guest.installed import (
    COMMAND,
    LAZY,
    PLAIN,
    RUNTIME,
    WANTED,
    index,
    install,
    registry,
)

ENABLED = Path("/sys/module/apparmor/parameters/enabled")
# A profile denies this; without one CAP_SYS_ADMIN is enough.
LABEL = "cat /proc/self/attr/current"
MOUNT = "mount -t tmpfs none /tmp && echo mounted"


def inside(*options: str) -> list[str]:
    """What a container of podman says: its label, a file of the image, whether it may mount."""
    script = f"{LABEL}; {COMMAND}; {MOUNT}"
    out = run(
        "podman", "--runtime", "clip-runc", "run", "--rm", "--network=none", "--tls-verify=false",
        "--cap-add=SYS_ADMIN", *options, "--annotation", f"dev.clip-runc.image={LAZY}", PLAIN,
        "sh", "-c", script, check=False,
    )  # fmt: skip
    return out.replace("\0", "").splitlines()


def podman_profile() -> str:
    """podman's own: its label is on the process, reads go on, and what it denies is denied."""
    assert ENABLED.read_text().strip() == "Y"
    label, content, *mounted = inside()
    assert label.startswith("containers-default-") and label.endswith("(enforce)"), label
    assert f"{content}\n" == WANTED
    assert not mounted, mounted
    free, _, *mounted = inside("--security-opt=apparmor=unconfined")
    # "busybox (unconfined)" where the release has a profile for that program
    assert free.endswith(("unconfined", "(unconfined)")) and mounted, (free, mounted)
    return label


def containerd_profile() -> str:
    """containerd's, by the name that CRI gives it."""
    run("systemctl", "start", "containerd")
    wait_for(lambda: "Server:" in run("ctr", "version", check=False), "containerd answers")
    run("ctr", "image", "pull", "--plain-http", PLAIN)
    name = "cri-containerd.apparmor.d"
    out = run(
        "ctr", "run", "--rm", "--runc-binary", RUNTIME, "--apparmor-default-profile", name,
        "--annotation", f"dev.clip-runc.image={LAZY}", PLAIN, "labelled",
        "sh", "-c", f"{LABEL}; {COMMAND}",
    )  # fmt: skip
    label, content = out.replace("\0", "").splitlines()
    assert label == f"{name} (enforce)", label
    assert f"{content}\n" == WANTED
    run("systemctl", "stop", "containerd")
    return label


CHECKS = (install, registry, index, podman_profile, containerd_profile)
