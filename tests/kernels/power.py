"""``tests/kernels/power``: a machine loses its power in the middle of work, and is looked at."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.kernels.data import data_disk
from tests.kernels.machine import GuestFailed, Machine
from tests.kernels.matrix import CACHE, lacking, scratch_directory
from tests.kernels.roots import RELEASES, Root, root

KINDS = ("fetch", "index", "create", "evict")
BOOT_SECONDS = 900
LONGEST_WORK = 12.0
Report = dict[str, Any]


class Power:
    """The disk that lives through all cuts."""

    def __init__(self, made: Root, data: Path, scratch: Path) -> None:
        disk = scratch / "root.ext4"
        subprocess.run(["cp", "--sparse=always", made.disk, disk], check=True)
        self._root = made._replace(disk=disk)
        self._data, self._scratch = data, scratch

    def turn(self, number: int, kind: str, seconds: float) -> tuple[bool, str]:
        """One boot, its checks, and ``seconds`` of work until the cut; whether all was well."""
        place = self._scratch / str(number)
        place.mkdir()
        arguments = {"programs": "power", "kind": kind, "round": str(number)}
        texts = {}
        with Machine(self._root, self._data, place, arguments, snapshot=False) as machine:
            for report in machine.reports(BOOT_SECONDS):
                if "busy" in report:
                    time.sleep(seconds)
                    machine.cut()
                    break
                texts[report["check"]] = report["text"]
                if not report["ok"]:
                    return False, f"{report['check']}: {report['text']}"
        steps = [str(one["busy"]) for one in machine.so_far() if "busy" in one]
        end = f"cut at {steps[-1]}" if steps else "nothing is left"
        return True, f"{texts['served']}, {texts['store']}; {end}"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/kernels/power")
    parser.add_argument("--release", default="debian13", choices=RELEASES)
    parser.add_argument("--times", type=int, default=20, help="power cuts")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--keep", action="store_true", help="keep consoles and disks")
    return parser.parse_args()


def main() -> int:
    """0 when every boot found everything in order."""
    chosen = arguments()
    if os.geteuid() or lacking():
        raise SystemExit(f"tests/kernels: needs {', '.join(lacking()) or 'root'}")
    rand = random.Random(chosen.seed)
    failed = 0
    with scratch_directory(keep=chosen.keep) as scratch:
        power = Power(root(CACHE, RELEASES[chosen.release]), data_disk(scratch), scratch)
        for number in range(chosen.times + 1):
            # the last boot only looks, and tidies up
            kind = KINDS[number % len(KINDS)] if number < chosen.times else "none"
            seconds = rand.uniform(0.2, LONGEST_WORK)
            begun = time.monotonic()
            try:
                ok, text = power.turn(number, kind, seconds)
            except GuestFailed as error:
                ok, text = False, str(error)
            failed += not ok
            mark = "✓" if ok else "✗"
            spent = time.monotonic() - begun
            print(
                f"{mark} {number:3} {kind:7} {seconds:5.1f} s  {spent:6.1f} s  {text}", flush=True
            )
    print(f"{failed} boots failed" if failed else f"{chosen.times} power cuts, all right")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
