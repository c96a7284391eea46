"""A machine of qemu for arm64, and the disk with what it is to run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.arm64.root import Root
from tests.integration.busybox_images import SETTINGS, base_layer, entry, tar
from tests.integration.clip_machine import REPOSITORY
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import Image, write_image, write_layer
from tests.integration.pushing import push
from tests.kernels.data import wheel
from tests.kernels.machine import Machine
from tests.kernels.roots import run

QEMU = "qemu-system-aarch64"
GUEST_SECONDS = 1500
_KERNEL = "console=ttyAMA0 root=/dev/vda quiet panic=-1 net.ifnames=0 clip.programs=arm64"
_COPIED = (
    "clip_runc", "hooks", "pyproject.toml",
    "tests/kernels/guest", "tests/unit/linux", "tests/integration/prerequisites.py",
)  # fmt: skip


class ArmMachine(Machine):
    """One boot on qemu's board ``virt``; reports come through a port of virtio-serial."""

    def __init__(self, root: Root, data: Path, scratch: Path) -> None:
        self.console = scratch / "console"
        self._results = scratch / "results"
        self._results.write_bytes(b"")
        command = [
            "setpriv", "--pdeathsig", "KILL",
            QEMU, "-M", "virt", "-accel", "tcg", "-cpu", "cortex-a72", "-smp", "2", "-m", "2048",
            "-nodefaults", "-display", "none", "-nic", "none", "-no-reboot",
            "-kernel", root.kernel, "-initrd", root.initrd, "-append", _KERNEL,
            "-drive", f"file={root.disk},format=raw,if=virtio,snapshot=on,cache=unsafe",
            "-drive", f"file={data},format=raw,if=virtio,readonly=on",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", f"file,id=results,path={self._results}",
            "-device", "virtserialport,chardev=results,name=clip.results",
            "-serial", f"file:{self.console}",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
            stdout=(scratch / "qemu").open("wb"), env={**os.environ, "TMPDIR": str(scratch)},
        )  # fmt: skip


def reports(root: Root, scratch: Path) -> Iterator[dict[str, Any]]:
    """What the guest reports; raises ``GuestFailed``, ``RuntimeError``."""
    data = _data_disk(root, scratch)
    with ArmMachine(root, data, scratch) as machine:
        yield from machine.reports(GUEST_SECONDS)


def _data_disk(root: Root, scratch: Path) -> Path:
    tree = scratch / "data"
    tree.mkdir()
    registry = DockerRegistry(scratch / "registry")
    try:
        for name, image in _images(root, scratch / "layout").items():
            push(image, registry.host, name, "1")
    finally:
        registry.stop()
    shutil.copytree(scratch / "registry/storage", tree / "registry")
    for name in _COPIED:
        source, target = REPOSITORY / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    wheel(tree)
    disk = scratch / "data.ext4"
    run(["mkfs.ext4", "-q", "-F", "-d", tree, disk, "128M"], scratch / "mkfs.log")
    return disk


def _images(root: Root, layout: Path) -> dict[str, Image]:
    """Those that the programs of the guest know by name, with programs of arm64."""
    base = write_layer(layout, [base_layer(root.busybox)])
    big = write_layer(layout, [tar([entry("srv/big", os.urandom(2 << 20))])], "zstd")
    settings = {"Env": SETTINGS["Env"], "Cmd": ["/bin/busybox", "sleep", "100000"]}
    return {
        "team/plain": write_image(layout, [base], settings, "arm64"),
        "team/lazy": write_image(layout, [base, big], settings, "arm64"),
    }
