"""Runs the programs that the kernel's command line names, by the guest's own Python alone.

``clip.programs=matrix,…``: modules of this directory, each with ``CHECKS``, functions without
arguments that raise where something is wrong and else say a few words. One that an earlier program
has run is not run again, so each program can name all that it needs. One that has had the machine
booted again says so (``AGAIN``); then only its own checks are run. Reports have check, ok, text
and seconds, and go to the file that is named; the last has the check ``done``.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable

from tests.kernels.guest.commands import arguments
from tests.kernels.guest.reporting import open_reports, report

Check = Callable[[], str]


def checks() -> list[Check]:
    """Those of all programs, in their order."""
    found: list[Check] = []
    for name in arguments()["programs"].split(","):
        program = importlib.import_module(f"tests.kernels.guest.{name}")
        if getattr(program, "AGAIN", False):
            return list(program.CHECKS)
        found += [check for check in program.CHECKS if check not in found]
    return found


def run_check(check: Check) -> None:
    """Run one and report it; one that fails does not stop those that follow."""
    begun = time.monotonic()
    try:
        text, ok = check(), True
    except Exception as error:
        traceback.print_exc()
        text, ok = f"{type(error).__name__}: {error}", False
    seconds = round(time.monotonic() - begun, 1)
    report(check=check.__name__, ok=ok, text=text, seconds=seconds)


def main() -> None:
    """All checks, then the machine is switched off."""
    open_reports(sys.argv[1])
    boot = round(time.clock_gettime(time.CLOCK_BOOTTIME), 1)
    report(check="boot", ok=True, text=os.uname().release, seconds=boot)
    for check in checks():
        run_check(check)
    os.sync()
    report(check="done")
    subprocess.run(["systemctl", "poweroff", "--force", "--force"], check=False)


if __name__ == "__main__":
    main()
