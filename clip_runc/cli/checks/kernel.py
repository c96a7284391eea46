"""The kernel: found out by trying, not by its version."""

from __future__ import annotations

import os
import tempfile

from clip_runc import personal
from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.config import Settings, is_rootless
from clip_runc.errors import ClipError
from clip_runc.linux import fuse_device, probe
from clip_runc.linux.mount import unmount


def check(settings: Settings) -> list[Finding]:
    """FUSE with its RESEND, and the system calls.  EROFS and overlay: see ``self_test``."""
    release = os.uname().release
    if os.geteuid():
        return [_no_namespace(), *_calls(release)]
    found = user_namespace() if is_rootless() else []
    return [*found, *_fuse(release), *_calls(release)]


def _no_namespace() -> Finding:
    """``clipctl`` of an ordinary user makes one, so it could not."""
    text = "not root, and no user namespace can be made: what needs mounts was not tried"
    hint = "sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns; or sudo"
    return Finding(FAIL, "user namespace", text, hint)


def user_namespace() -> list[Finding]:
    """How many ids it has, and what podman's runtime does not hear of."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        count = sum(int(line.split()[2]) for line in file)
    found = [Finding(OK, "user namespace", f"root of one with {count} ids: layer mode tree")]
    if count == 1:
        text = "one id is mapped: files of others are nobody's, clipd's server is the user itself"
        hint = "install uidmap, and give the user ids: usermod --add-subuids (and gids); subuid(5)"
        found = [Finding(WARN, "user namespace", text, hint)]
    for name, usual in (("XDG_DATA_HOME", ".local/share"), ("XDG_CONFIG_HOME", ".config")):
        value = os.environ.get(name, "")
        if value and value != f"{personal.home()}/{usual}":
            text = f"{name} is {value}, and podman does not tell its runtime"
            hint = f"a link at ~/{usual}/clip-runc to {value}/clip-runc"
            found.append(Finding(WARN, "environment", text, hint))
    return found


def _fuse(release: str) -> list[Finding]:
    try:
        resend = _can_resend()
    except (ClipError, OSError) as error:
        if isinstance(error, ClipError):
            return [Finding(FAIL, "FUSE", error.message, error.hint)]
        return [Finding(FAIL, "FUSE", str(error), "modprobe fuse")]
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
