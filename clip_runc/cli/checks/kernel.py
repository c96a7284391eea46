"""The kernel: found out by trying, not by its version."""

from __future__ import annotations

import os
import tempfile

from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.config import Settings
from clip_runc.errors import ClipError
from clip_runc.linux import fuse_device, probe
from clip_runc.linux.mount import unmount


def check(settings: Settings) -> list[Finding]:
    """FUSE with its RESEND, and the system calls.  EROFS and overlay: see ``self_test``."""
    release = os.uname().release
    if os.geteuid():
        text = "not root: what needs mounts was not tried"
        return [Finding(FAIL, "root", text, "run it again with sudo"), *_calls(release)]
    return [*_fuse(release), *_calls(release)]


def _fuse(release: str) -> list[Finding]:
    try:
        resend = _can_resend()
    except (ClipError, OSError) as error:
        hint = "modprobe fuse; in a container, give it /dev/fuse and CAP_SYS_ADMIN"
        return [Finding(FAIL, "FUSE", str(error), hint)]
    found = [Finding(OK, "FUSE", "/dev/fuse opens and mounts")]
    if resend:
        return [*found, Finding(OK, "FUSE resend", "a killed server costs no read")]
    text = f"Linux {release} has no FUSE_NOTIFY_RESEND: reads that a killed server took may fail"
    return [*found, Finding(WARN, "FUSE resend", text, "Linux 6.9 or later has it")]


def _can_resend() -> bool:
    """Mount, look at the kernel's INIT request, unmount."""
    with tempfile.TemporaryDirectory(prefix="clip-doctor-") as directory:
        device = fuse_device.open_device()
        try:
            fuse_device.mount_fuse(device, directory)
            try:
                return fuse_device.can_resend(fuse_device.read_init(device))
            finally:
                # Lazily and before the device is closed: nobody serves this mount.
                unmount(directory)
        finally:
            os.close(device)


def _calls(release: str) -> list[Finding]:
    found = []
    for name, has, why in (
        ("pidfd", probe.has_pidfd(), "a new supervisor takes the mount over with it"),
        ("openat2", probe.has_openat2(), "runc confines paths with it"),
    ):
        if has:
            found.append(Finding(OK, name, f"the kernel has {name}"))
        else:
            text = f"Linux {release} has no {name}, or seccomp forbids it: {why}"
            found.append(Finding(WARN, name, text, "Linux 5.6 or later has it"))
    return found
