"""Reports to the host: a JSON object a line in a file, a serial line in fact."""

from __future__ import annotations

import json
from typing import TextIO

_out: list[TextIO] = []


def open_reports(path: str) -> None:
    """Where reports go from now on."""
    _out.append(open(path, "w", buffering=1))  # noqa: SIM115  # open to the end


def report(**values: object) -> None:
    """A line; the host reads it at once."""
    _out[-1].write(json.dumps(values) + "\n")
