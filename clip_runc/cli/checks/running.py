"""clipd, and what the way in which images are mounted means for containers."""

from __future__ import annotations

import os
from typing import Any

from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.config import Settings
from clip_runc.errors import ClipError
from clip_runc.fs.client import Client

_RESTARTS = 20


def check(settings: Settings) -> list[Finding]:
    """Is clipd alive, and how deep are file systems stacked?"""
    return [_clipd(settings), _depth(settings)]


def _clipd(settings: Settings) -> Finding:
    if not os.path.lexists(settings.socket):
        return Finding(OK, "clipd", "does not run; the first container starts it")
    hint = f"clipctl stop, then see {settings.run_dir}/clipd.log"
    try:
        with Client.connect(settings) as client:
            return judge(client.status(), hint)
    except ClipError as error:
        return Finding(FAIL, "clipd", error.message, hint)


def judge(status: dict[str, Any], hint: str) -> Finding:
    """What clipd says of itself."""
    server = status["server"]
    text = f"supervisor {status['supervisor']['pid']}, server {server['pid']} {server['state']}"
    if server["state"] == "dead":
        return Finding(FAIL, "clipd", text, hint)
    if server["state"] != "serving" or server["restarts"] > _RESTARTS:
        return Finding(WARN, "clipd", f"{text}, restarted {server['restarts']} times", hint)
    return Finding(OK, "clipd", text)


def _depth(settings: Settings) -> Finding:
    mode = settings.layer_mode
    if mode == "tree":
        return Finding(OK, "stacking", "one overlay may be mounted over a container's root")
    text = "a container cannot mount an overlay over its own root: the kernel stacks two deep"
    # Not a fault of the machine: the price of EROFS, and known before somebody meets it.
    return Finding(OK, "stacking", f'{text}; layer_mode = "tree" or a volume if it must')
