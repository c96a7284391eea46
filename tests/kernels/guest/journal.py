"""What clipd says is in the journal, with fields of its own."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from tests.kernels.guest.commands import run, wait_for
from tests.kernels.guest.installed import install, status, units


def entries(*matches: str) -> list[dict[str, Any]]:
    """What journalctl finds of the unit."""
    out = run("journalctl", "--unit=clipd.service", "--output=json", *matches)
    return [json.loads(line) for line in out.splitlines()]


def journal() -> str:
    """A server is killed; who asks the journal for that event finds it, its level and its pid."""
    pid = status()["server"]["pid"]
    os.kill(pid, signal.SIGKILL)
    matches = ("CLIP_RUNC_EVENT=server-ended", f"CLIP_RUNC_PID={pid}")
    wait_for(lambda: entries(*matches), "the journal has the death of a server")
    (entry,) = entries(*matches)
    assert entry["SYSLOG_IDENTIFIER"] == "clipd" and entry["PRIORITY"] == "4", entry
    assert str(pid) in entry["MESSAGE"]
    fields = sorted(name for name in entry if name.startswith("CLIP_RUNC_"))
    return ", ".join(fields)


CHECKS = (install, units, journal)
