"""What a test may need of the machine, each thing by its name.

A missing one skips the test with that name where a person runs the tests, and fails it
where ``CI`` is set: a machine that cannot run a test must not look as if it had passed.
"""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest

PROGRAMS = {
    "runc": "runc",
    "crun": "crun",
    "containerd": "containerd",
    "docker-registry": "docker-registry",
    "debootstrap": "debootstrap",
    "dpkg-deb": "dpkg-deb",
    "busybox": "busybox",
    "chromium": "chromium",
    "curl": "curl",
    "fincore": "fincore",
    "depmod": "depmod",
    "mkfs.ext4": "mkfs.ext4",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "newuidmap",
    "openssl": "openssl",
    "podman": "podman",
    "qemu-system-x86_64": "qemu-system-x86_64",
    "strace": "strace",
    "rootlesskit": "rootlesskit",
    "setpriv": "setpriv",
    "systemd-analyze": "systemd-analyze",
}


def in_ci() -> bool:
    """Whether ``CI`` is set to anything but an empty string, 0 or false."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def missing(name: str) -> str:
    """Why the prerequisite ``name`` is not met; empty when it is."""
    if name == "root":
        return "" if os.geteuid() == 0 else "not running as root"
    if name == "fuse":
        return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse cannot be opened"
    if name in ("erofs", "overlay"):
        known = Path("/proc/filesystems").read_text().split()
        return "" if name in known else f"the kernel has no {name} file system"
    if name == "memory cgroup v1":
        here = os.access("/sys/fs/cgroup/memory/memory.limit_in_bytes", os.W_OK)
        return "" if here else "no writable /sys/fs/cgroup/memory"
    if name == "linux-libc-dev":
        here = Path("/usr/include/asm-generic/unistd.h").exists()
        return "" if here else "the kernel's headers are not installed"
    if name == "core files":
        piped = Path("/proc/sys/kernel/core_pattern").read_text().startswith("|")
        here = not piped and resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
        return "" if here else "the hard limit is 0, or they are piped to a program"
    program = PROGRAMS[name]
    search = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return "" if shutil.which(program, path=search) else f"{program} is not installed"


def native(what: str) -> pytest.MarkDecorator:
    """For a test that needs ``what`` of the kernel, which no program has below qemu-user."""
    return pytest.mark.skipif(
        emulated() and not in_ci(), reason=f"prerequisite {what}: qemu-user has none"
    )


def emulated() -> bool:
    """Whether this program runs below qemu-user."""
    return bool(os.environ.get("CLIP_TEST_QEMU_USER"))


def paced(seconds: float) -> float:
    """A limit of CPU time, where that is an emulator's: it takes ten to thirty times as long."""
    return seconds * 40 if emulated() else seconds


def need(*names: str) -> None:
    """Skip the calling test, or fail it in CI, unless all the prerequisites are met."""
    for name in names:
        if reason := missing(name):
            message = f"prerequisite {name}: {reason} (scripts/setup installs it)"
            if in_ci():
                pytest.fail(message, pytrace=False)
            pytest.skip(message)
