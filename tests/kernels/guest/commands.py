"""What every program in a guest needs: commands that show why they failed, and patience."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

DATA = "/clip-test"
# An emulated machine on a busy one is slow; a hang is still told from that.
SECONDS = 240


def run(*command: str, seconds: float = SECONDS, check: bool = True) -> str:
    """What a command prints; raises ``AssertionError`` with all of it where it fails.

    By files: a container that stays has them open, and the end of a pipe would never come.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        status = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, timeout=seconds,
            check=False,
        ).returncode  # fmt: skip
        out.seek(0)
        errors.seek(0)
        said = out.read()
        if check and status:
            text = f"{' '.join(command)}: {status}: {said}{errors.read()}"
            raise AssertionError(text[-2000:])
    return said


def arguments() -> dict[str, str]:
    """What the host says to the programs: ``clip.NAME=VALUE`` on the kernel's command line."""
    words = Path("/proc/cmdline").read_text().split()
    pairs = (word.removeprefix("clip.").partition("=") for word in words if "clip." in word)
    return {name: value for name, _, value in pairs}


def wait_for(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait until it is true; raises ``AssertionError`` that names ``what`` where it stays false."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not in {seconds:.0f} s: {what}")
        time.sleep(0.1)
