"""clipd, and what the way in which images are mounted means for containers."""

from __future__ import annotations

import os
from typing import Any

from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.config import Settings
from clip_runc.errors import ClipError
from clip_runc.fs.client import Client, is_asleep

_RESTARTS = 20
_ACCEPTS = "00010000"  # __SO_ACCEPTCON


def check(settings: Settings) -> list[Finding]:
    """Is clipd alive, and how deep are file systems stacked?"""
    return [_clipd(settings)]


def _clipd(settings: Settings) -> Finding:
    if not os.path.lexists(settings.socket):
        return Finding(OK, "clipd", "does not run; the first container starts it")
    if is_asleep(settings) and listens(settings.socket):
        return Finding(
            OK, "clipd", "does not run; systemd listens, and the first container wakes it"
        )
    hint = f"clipctl stop, then see {settings.run_dir}/clipd.log"
    try:
        with Client.connect(settings) as client:
            return judge(client.status(), hint)
    except ClipError as error:
        return Finding(FAIL, "clipd", error.message, hint)


def listens(path: str) -> bool:
    """Is somebody there who would take a connection (proc(5), /proc/net/unix)?"""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.rstrip("\n").split(None, 7)
            if len(fields) == 8 and fields[7] == path and fields[3] == _ACCEPTS:
                return True
    return False


def judge(status: dict[str, Any], hint: str) -> Finding:
    """What clipd says of itself."""
    server = status["server"]
    text = f"supervisor {status['supervisor']['pid']}, server {server['pid']} {server['state']}"
    if server["state"] == "dead":
        return Finding(FAIL, "clipd", text, hint)
    if server["state"] != "serving" or server["restarts"] > _RESTARTS:
        return Finding(WARN, "clipd", f"{text}, restarted {server['restarts']} times", hint)
    return Finding(OK, "clipd", text)
