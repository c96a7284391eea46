"""``tests/kernels/run``: each release in a machine of its own; a line of the table a check."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kernels.data import data_disk
from tests.kernels.machine import QEMU, GuestFailed, Machine, accelerator
from tests.kernels.roots import RELEASES, Release, root

CACHE = Path("/var/cache/clip-runc-tests/kernels")
SCRATCH = Path("/var/tmp")
NEEDED = (QEMU, "mmdebstrap", "mkfs.ext4", "depmod", "docker-registry", "busybox")
PROGRAMS = "matrix"
# An emulated guest takes four minutes, far more on a busy machine.
GUEST_SECONDS = 1800
# What a program needs of its machine.
OPTIONS: dict[str, dict[str, bool]] = {
    "restart": {"reboots": True},
    "provision": {"network": True},
}
Report = dict[str, Any]


def guest(
    release: Release,
    data: Path,
    scratch: Path,
    memory: int,
    programs: str = PROGRAMS,
    seconds: float = GUEST_SECONDS,
) -> Iterator[Report]:
    """What the guest reports, and lines of our own: its root, and the machine as a whole."""
    begun = time.monotonic()

    def line(check: str, text: str, *, ok: bool = True) -> Report:
        spent = round(time.monotonic() - begun, 1)
        return {"check": check, "ok": ok, "text": text, "seconds": spent}

    try:
        made = root(CACHE, release)
        yield line("root", made.disk.parent.name)
        arguments, options = {"programs": programs}, {}
        for name in programs.split(","):
            options |= OPTIONS.get(name, {})
        with Machine(made, data, scratch, arguments, memory=memory, **options) as machine:
            yield from machine.reports(seconds)
        yield line("machine", accelerator(made))
    except (GuestFailed, RuntimeError) as error:
        yield line("machine", str(error), ok=False)


def show(release: Release, report: Report) -> str:
    """A line of the table."""
    mark = "✓" if report["ok"] else "✗"
    return (
        f"{mark} {release.title:14} {report['check']:12} {report['seconds']:6.1f} s  "
        f"{report['text']}"
    )


@contextmanager
def scratch_directory(*, keep: bool = False) -> Iterator[Path]:
    """On a disk; gone afterwards unless it is to be looked at."""
    scratch = Path(tempfile.mkdtemp(prefix="clip-kernels-", dir=SCRATCH))
    try:
        yield scratch
    finally:
        if keep:
            print(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/kernels/run")
    parser.add_argument("release", nargs="*", metavar="RELEASE", help=", ".join(RELEASES))
    parser.add_argument("--keep", action="store_true", help="keep consoles and disks")
    parser.add_argument("--memory", type=int, default=1536, help="MiB a guest")
    parser.add_argument("--programs", default=PROGRAMS, help="of tests/kernels/guest, with commas")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.release if name not in RELEASES]
    if unknown:
        parser.error(f"unknown release {unknown[0]!r}: one of {', '.join(RELEASES)}")
    return chosen


def lacking() -> list[str]:
    """Programs that are not here."""
    search = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return [name for name in NEEDED if not shutil.which(name, path=search)]


def main() -> int:
    """0 when every check of every release passed."""
    chosen = arguments()
    if os.geteuid() or lacking():
        raise SystemExit(f"tests/kernels: needs {', '.join(lacking()) or 'root'}")
    failed = 0
    with scratch_directory(keep=chosen.keep) as scratch:
        data = data_disk(scratch)
        for name in chosen.release or RELEASES:
            place = scratch / name
            place.mkdir()
            for report in guest(RELEASES[name], data, place, chosen.memory, chosen.programs):
                print(show(RELEASES[name], report), flush=True)
                failed += not report["ok"]
    print(f"{failed} checks failed" if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
