"""``tests/kernels/provision``: scripts/provision in a new Debian 13, with the network."""

from __future__ import annotations

import os
import sys

from tests.kernels import matrix
from tests.kernels.data import data_disk
from tests.kernels.roots import FRESH

SECONDS = 7200


def main() -> int:
    """0 when the script and what it made are in order."""
    if os.geteuid() or matrix.lacking():
        raise SystemExit(f"tests/kernels: needs {', '.join(matrix.lacking()) or 'root'}")
    with matrix.scratch_directory(keep="--keep" in sys.argv) as scratch:
        data = data_disk(scratch, source=True)
        reports = []
        for report in matrix.guest(FRESH, data, scratch, 2048, "provision", SECONDS):
            print(matrix.show(FRESH, report), flush=True)
            reports.append(report)
    return 0 if all(report["ok"] for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
