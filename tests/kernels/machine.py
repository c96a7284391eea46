"""A machine of qemu: two disks, two serial lines; the second one brings what the guest reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.kernels.initrd import PROBED
from tests.kernels.roots import Root

QEMU = "qemu-system-x86_64"
_KERNEL = "console=ttyS0 root=/dev/vda quiet panic=-1 net.ifnames=0 mitigations=off"
_NETWORK = ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
_PROBE_SECONDS = 15
_TAIL = 30
_BOOTS = 3
"""Of a machine whose kernel dies in its own initialisation: two processors of TCG now and then do
not see in time what the kernel patches of its code (``Oops: int3``), before a line of ours ran."""
_INITIALISING = "kernel_init_freeable"


class GuestFailed(Exception):
    """The machine stopped or stayed silent; with the end of its console."""


class Machine:
    """One boot.  A context manager: the machine is dead afterwards, whatever happened."""

    _boots = 0  # that are left

    def __init__(
        self,
        root: Root,
        data: Path,
        scratch: Path,
        arguments: dict[str, str],
        *,
        memory: int = 1536,
        snapshot: bool = True,
        reboots: bool = False,
        network: bool = False,
    ) -> None:
        """``arguments``: what ``guest.commands.arguments`` gives, ``programs`` among them.

        ``snapshot``: nothing that is written to the root's disk lasts.  ``reboots``: a guest that
        boots again does so; else that is its end, after a panic too.  ``network``: qemu passes on
        what the guest asks of the world, as from this machine.
        """
        self.console = scratch / "console"
        self._results = scratch / "results"
        self._results.write_bytes(b"")
        kept = "on" if snapshot else "off"
        # cache=unsafe where nothing lasts; else a flush is one, as a power cut needs
        cached = "unsafe" if snapshot else "writeback"
        disk = f"file={root.disk},format=raw,if=virtio,snapshot={kept},cache={cached}"
        command = [
            "setpriv", "--pdeathsig", "KILL",  # it ends with us, however we end
            *_command(root, accelerator(root), memory),
            *(() if reboots else ("-no-reboot",)),
            *(_NETWORK if network else ("-nic", "none")),
            "-drive", disk,
            "-drive", f"file={data},format=raw,if=virtio,readonly=on",
            "-append", " ".join([_KERNEL, *(f"clip.{k}={v}" for k, v in arguments.items())]),
            "-serial", f"file:{self.console}", "-serial", f"file:{self._results}",
        ]  # fmt: skip
        self._command, self._scratch = command, scratch
        self._boots = _BOOTS if accelerator(root) == "tcg" else 1
        self._boot()

    def _boot(self) -> None:
        self._boots -= 1
        with (self._scratch / "qemu").open("ab") as said:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self._scratch)},
            )  # fmt: skip

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Pull the plug."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def reports(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What the guest reports, until it says that it is done; raises ``GuestFailed``."""
        end = time.monotonic() + seconds
        with self._results.open("rb") as file:
            rest = b""
            while True:
                gone = self.process.poll() is not None
                rest += file.read()
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    report: dict[str, Any] = json.loads(line)
                    if report.get("check") == "done":
                        return
                    yield report
                if not lines:
                    if gone and self._boots and _INITIALISING in self._said():
                        self._boot()
                        continue
                    if gone:
                        raise GuestFailed(f"the machine ended:\n{self.tail()}")
                    if time.monotonic() > end:
                        raise GuestFailed(f"nothing more in {seconds:.0f} s:\n{self.tail()}")
                    time.sleep(0.1)

    def so_far(self) -> list[dict[str, Any]]:
        """All reports; a power cut may have come in the middle of the last."""
        return [json.loads(line) for line in self._results.read_bytes().split(b"\n")[:-1]]

    def tail(self) -> str:
        """The end of its console."""
        return "\n".join(self._said().splitlines()[-_TAIL:])

    def _said(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""


def _command(root: Root, accel: str, memory: int) -> list[str]:
    return [
        QEMU, "-accel", accel, "-cpu", "host" if accel == "kvm" else "max", "-smp", "2",
        "-m", str(memory), "-nodefaults", "-display", "none",
        "-kernel", str(root.kernel), "-initrd", str(root.initrd),
        "-device", "virtio-rng-pci",
    ]  # fmt: skip


@cache
def accelerator(root: Root) -> str:
    """``kvm`` where it boots a machine, which is tried, or ``tcg``."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        command = [
            *_command(root, "kvm", 256), "-nic", "none", "-serial", "stdio",
            "-append", "console=ttyS0 quiet panic=-1 clip.probe", "-no-reboot",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, stdin=subprocess.DEVNULL,
                timeout=_PROBE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "tcg"
        if PROBED.encode() in done.stdout:
            return "kvm"
    return "tcg"
