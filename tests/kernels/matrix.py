"""``tests/kernels/run``: each release in a machine of its own, a table at the end."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.integration.busybox_images import SETTINGS, base_layer, entry, middle_layer, tar
from tests.integration.clip_machine import REPOSITORY
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import Image, write_image, write_layer
from tests.integration.pushing import push
from tests.kernels.machine import QEMU, GuestFailed, Machine, accelerator
from tests.kernels.roots import RELEASES, Release, root, run

CACHE = Path("/var/cache/clip-runc-tests/kernels")
SCRATCH = Path("/var/tmp")
NEEDED = (QEMU, "mmdebstrap", "mkfs.ext4", "depmod", "docker-registry")
BIG_BYTES = 8 << 20
# An emulated guest on a busy machine takes two to four minutes.
GUEST_SECONDS = 900


def images(layout: Path) -> tuple[Image, Image, dict[str, str]]:
    """A lazy image with a file that takes a while, an ordinary one, and the file's SHA-256."""
    big = random.Random(10).randbytes(BIG_BYTES // 2).hex().encode()
    layers = [
        write_layer(layout, [base_layer()], "gzip"),
        write_layer(layout, [middle_layer()], "zstd"),
        write_layer(layout, [tar([entry("srv/big", big)])], "gzip"),
    ]
    settings = {"Env": SETTINGS["Env"], "Cmd": ["/bin/busybox", "sleep", "100000"]}
    return (
        write_image(layout, layers, settings),
        write_image(layout, layers[:1], settings),
        {"srv/big": hashlib.sha256(big).hexdigest()},
    )


def wheel(directory: Path) -> None:
    """Build the wheel that the guests install."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the wheel cannot be built:\n{done.stdout}{done.stderr}")


def data_disk(scratch: Path, program: str = "guest.py") -> Path:
    """What the guests need of this tree: the wheel, a registry's storage, the tests."""
    tree = scratch / "data"
    tree.mkdir()
    lazy, plain, expected = images(scratch / "layout")
    registry = DockerRegistry(scratch / "registry")
    try:
        push(lazy, registry.host, "team/lazy", "1")
        push(plain, registry.host, "team/plain", "1")
    finally:
        registry.stop()
    shutil.copytree(scratch / "registry/storage", tree / "registry")
    (tree / "expected.json").write_text(json.dumps(expected))
    for name in {program, "guest.py"}:
        shutil.copy(Path(__file__).parent / name, tree)
    wheel(tree)
    disk = scratch / "data.ext4"
    run(["mkfs.ext4", "-q", "-F", "-d", tree, disk, "256M"], scratch / "mkfs.log")
    return disk


def test(release: Release, data: Path, scratch: Path, memory: int) -> list[dict[str, Any]]:
    """What the guest reports, and a line of our own where it fails as a whole."""
    begun = time.monotonic()
    found: list[dict[str, Any]] = []
    try:
        made = root(CACHE, release)
        seconds = round(time.monotonic() - begun, 1)
        found.append({"check": "root", "ok": True, "text": "", "seconds": seconds})
        with Machine(made, data, scratch, memory=memory) as machine:
            for report in machine.reports(GUEST_SECONDS):
                show(release, report)
                found.append(report)
        text = accelerator(made)
    except (GuestFailed, RuntimeError) as error:
        found.append({"check": "machine", "ok": False, "text": str(error), "seconds": 0.0})
        show(release, found[-1])
    else:
        seconds = round(time.monotonic() - begun, 1)
        found.append({"check": "machine", "ok": True, "text": text, "seconds": seconds})
        show(release, found[-1])
    return found


def show(release: Release, report: dict[str, Any]) -> None:
    """A line of the table, as soon as it is known."""
    mark = "✓" if report["ok"] else "✗"
    print(f"{mark} {release.title:14} {report['check']:11} {report['seconds']:6.1f} s  "
          f"{report['text']}", flush=True)  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/kernels/run")
    parser.add_argument("release", nargs="*", metavar="RELEASE", help=", ".join(RELEASES))
    parser.add_argument("--keep", action="store_true", help="keep consoles and disks")
    parser.add_argument("--memory", type=int, default=1536, help="MiB a guest")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.release if name not in RELEASES]
    if unknown:
        parser.error(f"unknown release {unknown[0]!r}: one of {', '.join(RELEASES)}")
    return chosen


def prerequisites() -> None:
    """Say at once what is not there."""
    search = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    lacking = [name for name in NEEDED if not shutil.which(name, path=search)]
    if os.geteuid() or lacking:
        raise SystemExit(f"tests/kernels: needs {', '.join(lacking) or 'root'}")


def main() -> int:
    """0 when every check of every release passed."""
    chosen = arguments()
    prerequisites()
    scratch = Path(tempfile.mkdtemp(prefix="clip-kernels-", dir=SCRATCH))
    failed = 0
    try:
        data = data_disk(scratch)
        for name in chosen.release or RELEASES:
            place = scratch / name
            place.mkdir()
            found = test(RELEASES[name], data, place, chosen.memory)
            failed += sum(not one["ok"] for one in found)
    finally:
        if chosen.keep:
            print(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch)
    print(f"{failed} checks failed" if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
