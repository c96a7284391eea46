"""``tests/arm64/run``: unit tests and builds below qemu-user, then a machine with a container."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.arm64.binfmt import QEMU, emulated
from tests.arm64.guest import QEMU as MACHINE
from tests.arm64.guest import reports
from tests.arm64.root import Root, root
from tests.arm64.unit import ROOMS, builds, scratch_directory, unit_tests
from tests.kernels.machine import GuestFailed

PARTS = (*ROOMS, "builds", "guest")
NEEDED = (QEMU, MACHINE, "mmdebstrap", "arch-test", "mkfs.ext4", "depmod", "docker-registry")


def line(name: str, text: str, *, ok: bool) -> bool:
    """Print a line of the table."""
    print(f"{'✓' if ok else '✗'} {name:16} {text}", flush=True)
    return ok


def guest(made: Root) -> bool:
    """Boot it; did every check of it pass?"""
    passed = True
    with tempfile.TemporaryDirectory(prefix="clip-arm64-", dir="/var/tmp") as scratch:
        try:
            for report in reports(made, Path(scratch)):
                text = f"{report['text']} ({report['seconds']} s)"
                passed &= line(f"guest {report['check']}", text, ok=report["ok"])
        except (GuestFailed, RuntimeError) as error:
            return line("guest", str(error), ok=False)
    return passed


def main() -> int:
    """0 when everything that was asked for passed."""
    parser = argparse.ArgumentParser(prog="tests/arm64/run")
    parser.add_argument("what", nargs="*", help=f"{', '.join(PARTS)}; default: all")
    chosen = parser.parse_args().what or PARTS
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    search = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    lacking = [name for name in NEEDED if not shutil.which(name, path=search)]
    if os.geteuid() or lacking:
        raise SystemExit(f"tests/arm64: needs {', '.join(lacking) or 'root'}")
    log = Path(f"/var/tmp/clip-arm64-{os.getpid()}.log")
    failed = 0
    with emulated(str(shutil.which(QEMU))):
        made = root()
        with scratch_directory() as place:
            for room in (room for room in ROOMS if room in chosen):
                ok, text = unit_tests(made, room, place, log)
                failed += not line(f"unit {room}", text, ok=ok)
            if "builds" in chosen:
                ok, text = builds(made, place, log)
                failed += not line("pip builds", text, ok=ok)
    if "guest" in chosen:
        failed += not guest(made)
    print(f"{failed} failed: {log}" if failed else "all passed")
    if not failed:
        log.unlink(missing_ok=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
