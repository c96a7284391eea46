"""The whole way once: an index of a small image, mounted in each layer mode, read, torn down.

The image comes from a registry in this process, on the loopback interface, so the test needs no
network and fetches lazily like any container.  Everything is below one temporary directory beside
the state directory, and has a clipd of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import time

from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.cli.checks.storage import existing
from clip_runc.config import Settings, is_rootless
from clip_runc.containers.api import OverlayMounter
from clip_runc.errors import ClipError, MountFailed
from clip_runc.fs.client import Client
from clip_runc.images.make import index_image
from clip_runc.linux.mount import mount_overlay, mounts, unmount
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.platforms import host_platform

MODES = ("erofs", "loop", "tree")
_NEEDS = {
    "erofs": "EROFS on files needs Linux 6.12 with EROFS_FS and EROFS_FS_BACKED_BY_FILE",
    "loop": "EROFS on loop devices needs Linux 6.4 (or a 6.1 as Debian 12 has it), EROFS_FS, "
    "and /dev/loop-control",
    "tree": "tree mode needs FUSE and overlayfs only: see the lines above",
}
_CONTENT = b"clip-runc reads this through the whole stack\n" * 4096
_NAME = "usr/share/clip-runc/self-test"


def check(settings: Settings) -> list[Finding]:
    """A line for each mode, and one for what a container gets."""
    if os.geteuid():
        text = "not root, and no user namespace: nothing was mounted"
        return [Finding(FAIL, "self-test", text, "see the line about it above, or use sudo")]
    try:
        base = tempfile.mkdtemp(prefix="clip-doctor-", dir=existing(settings.state_dir))
    except OSError as error:
        return [Finding(FAIL, "self-test", f"no temporary directory: {error}", "make room")]
    try:
        with FakeRegistry() as registry:
            layer = _layer()
            registry.add_image(
                "clip-runc/self-test", "1", [gzip.compress(layer, mtime=0)],
                diff_ids=[f"sha256:{hashlib.sha256(layer).hexdigest()}"],
                config={"architecture": host_platform().partition("/")[2].partition("/")[0]},
            )  # fmt: skip
            reference = str(registry.reference("clip-runc/self-test", "1"))
            tried = MODES[-1:] if is_rootless() else MODES
            modes = {mode: _mode(settings, base, mode, reference) for mode in tried}
    finally:
        left = _sweep(base)
    working = [mode for mode, finding in modes.items() if finding.level == OK]
    found = [*modes.values(), _chosen(settings.layer_mode, working)]
    if left:
        text = f"left behind: {', '.join(left)}"
        found.append(Finding(FAIL, "self-test", text, f"umount -l these, rm -r {base}"))
    return found


def _chosen(wanted: str, working: list[str]) -> Finding:
    """Which of them a container gets here, and why."""
    subject, remedy = "layer mode", "see what each mode above needs"
    if not working:
        text = "none works: containers cannot start from an index here"
        return Finding(FAIL, subject, text, remedy)
    if wanted == "auto":
        return Finding(
            OK, subject, f"{working[0]}, the first of {', '.join(MODES)} that works here"
        )
    if wanted not in working:
        text = f"layer_mode = {wanted} does not work here"
        return Finding(FAIL, subject, text, f"{remedy}; layer_mode = auto takes {working[0]}")
    why = "" if wanted == working[0] else f"; auto would take {working[0]}"
    return Finding(OK, subject, f"{wanted}, by configuration{why}")


def _layer() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(_NAME)
        info.size = len(_CONTENT)
        archive.addfile(info, io.BytesIO(_CONTENT))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, _NAME
        archive.addfile(link)
    return out.getvalue()


def _mode(settings: Settings, base: str, mode: str, reference: str) -> Finding:
    values = dict(vars(settings))
    values.update(state_dir=f"{base}/{mode}/state", run_dir=f"{base}/{mode}/run", layer_mode=mode)
    own = Settings(**values)
    began = time.monotonic()
    try:
        problem, stacks = _mount_and_read(own, reference)
    except (ClipError, OSError) as error:
        # Another mode may do: only none at all is a failure.
        return Finding(WARN, f"mode {mode}", str(error), _NEEDS[mode])
    finally:
        _stop(own)
    if problem:
        return Finding(
            FAIL, f"mode {mode}", problem, "report this with the output of clipctl doctor"
        )
    seconds = time.monotonic() - began
    text = f"indexed, mounted, read and written, unmounted ({seconds:.1f} s)"
    more = "a container may" if stacks else "no container can"
    return Finding(OK, f"mode {mode}", f"{text}; {more} mount an overlay over its own root")


def _mount_and_read(own: Settings, reference: str) -> tuple[str, bool]:
    """What is wrong, in words, and whether one more overlay fits on top."""
    path = index_image(own, reference).path
    with OverlayMounter(settings=own).mount(path) as mount:
        with open(f"{mount.rootfs_path}/{_NAME}", "rb") as file:
            if file.read() != _CONTENT:
                return "a file has other bytes than the image", False
        if os.readlink(f"{mount.rootfs_path}/link") != _NAME:
            return "a symbolic link is not what the image has", False
        with open(f"{mount.rootfs_path}/written", "wb") as file:
            file.write(b"above")
        return "", _one_more(mount.rootfs_path, f"{own.state_dir}/over")


def _one_more(rootfs: str, place: str) -> bool:
    """Can an overlay be mounted over the root of a container?

    The kernel stacks two deep, and not every one counts EROFS on files as one of them: Linux
    6.18.44 does not.
    """
    upper, work, target = (f"{place}/{name}" for name in ("upper", "work", "target"))
    for directory in (upper, work, target):
        os.makedirs(directory)
    try:
        mount_overlay(rootfs, upper, work, target, nosuid=True)
    except MountFailed:
        return False
    unmount(target)
    return True


def _stop(own: Settings) -> None:
    try:
        with Client.connect(own) as client:
            client.stop()
    except ClipError:
        return  # it never ran, or is gone; what it left is looked for afterwards


def _sweep(base: str) -> list[str]:
    """Unmount what is left, remove the directory; what there was."""
    left = [one.target for one in mounts() if one.target.startswith(f"{base}/")]
    for target in reversed(left):
        unmount(target)
    shutil.rmtree(base, ignore_errors=True)
    return left + ([base] if os.path.lexists(base) else [])
