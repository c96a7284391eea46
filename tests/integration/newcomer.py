"""A machine on which nothing of clip-runc is: what a document says is typed there, as it stands.

Namespaces of mounts and processes, with overlays on the directories that a newcomer's commands
change and a disk below those that must not be on an overlay: the default paths, and the machine
that runs the test stays as it is.  When the last command is over every process of it is killed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.integration.documents import REPOSITORY

_CHANGED = ("etc", "root", "srv", "usr/local", "var/lib")
# Not on an overlay: overlays are mounted from there.
_DISKS = ("clip", "containerd", "containers")
Done = subprocess.CompletedProcess[str]


class Newcomer:
    """Directories for one machine; each ``type`` is one login on it, with what was left before."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in _CHANGED:
            for layer in ("upper", "work"):
                (directory / layer / name).mkdir(parents=True)
        for name in _DISKS:
            (directory / "disk" / name).mkdir(parents=True)
        (directory / "home").mkdir()

    def type(self, script: str, *, before: str = "", seconds: float = 120) -> Done:
        """Run a script with ``sh -ex``; its output and what went wrong in one text."""
        clipctl = f'exec {sys.executable} -m clip_runc.cli.main "$@"'
        lines = [
            "exec 2>&1",
            *(self._overlay(name) for name in _CHANGED),
            "rm -rf /etc/clip-runc /etc/containerd /root/.docker",
            "rm -f /usr/local/bin/clip*",
            "mount -t tmpfs tmpfs /run",
            *(f"mkdir -p /var/lib/{one}" for one in _DISKS),
            *(f"mount --bind {self.directory}/disk/{one} /var/lib/{one}" for one in _DISKS),
            f"printf '#!/bin/sh\\n%s\\n' {shlex.quote(clipctl)} > /usr/local/bin/clipctl",
            "chmod 755 /usr/local/bin/clipctl",
            f"cd {self.directory}/home",
            before,
            "set -x",
            script,
        ]
        kept = ("PATH", "LANG", "LC_ALL", "TERM")
        environ = {key: os.environ[key] for key in kept if key in os.environ}
        environ |= {"HOME": "/root", "PYTHONPATH": str(REPOSITORY)}
        environ["PATH"] = f"/usr/local/bin:{environ['PATH']}:/usr/sbin:/sbin"
        command = ["timeout", "--kill-after=5", str(seconds)]  # 124, and what was said until then
        command += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return subprocess.run(
            [*command, "--propagation", "private", "sh", "-ec", "\n".join(lines)],
            env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False,
            text=True, cwd="/",
        )  # fmt: skip

    def _overlay(self, name: str) -> str:
        upper, work = (f"{self.directory}/{layer}/{name}" for layer in ("upper", "work"))
        options = f"lowerdir=/{name},upperdir={upper},workdir={work}"
        return f"mount -t overlay overlay -o {options} /{name}"
