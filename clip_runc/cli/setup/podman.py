"""clip-runc as a runtime that podman knows by name."""

from __future__ import annotations

import json

from clip_runc.cli.setup.changes import MARK, Change, own_file, removals

PATH = "/etc/containers/containers.conf.d/50-clip-runc.conf"
# conmon adopts a clipd that its container starts, ends when that does, and podman 5 waits for it
NEXT = (
    "have clipd run before containers do (--systemd); "
    "podman --runtime clip-runc run --annotation dev.clip-runc.image=REFERENCE …"
)


def install(binary: str, root: str) -> Change:
    """A drop-in.  Raises ``ConfigError``."""
    text = f"# {MARK}, removed by clipctl uninstall\n[engine.runtimes]\n"
    return own_file(PATH, f"{text}clip-runc = [{json.dumps(binary)}]\n", root)


def uninstall(root: str) -> list[Change]:
    """Without it."""
    return removals([PATH], root)
