"""A warm image and the same files for plain runc: what the benches of the shim start from."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import RUNC, plain_bundle
from tests.integration.busybox_images import plain
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import unpacked
from tests.integration.pushing import push


class Account:
    """Processor time by a cgroup, version 1 or 2; of children where none is asked for."""

    def __init__(self) -> None:
        self.directory: Path | None = None
        self.settle = 0.0

    def open(self) -> None:
        """Have commands join the cgroup, and give what they leave behind a moment."""
        top = Path("/sys/fs/cgroup/cpuacct")
        directory = (top if top.is_dir() else top.parent) / f"clip-bench-{os.getpid()}"
        directory.mkdir()
        self.directory, self.settle = directory, 0.01

    def close(self) -> None:
        """Remove the cgroup, when its last process has ended."""
        end = time.monotonic() + 10
        while self.directory is not None:
            try:
                self.directory.rmdir()
                self.directory = None
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def enter(self) -> None:
        """For a child, before it becomes its command."""
        if self.directory is not None:
            (self.directory / "cgroup.procs").write_text("0")

    def milliseconds(self) -> float:
        """So far."""
        if self.directory is None:
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            return (used.ru_utime + used.ru_stime) * 1000
        if (usage := self.directory / "cpuacct.usage").exists():
            return int(usage.read_text()) / 1e6
        return int((self.directory / "cpu.stat").read_text().split()[1]) / 1e3


ACCOUNT = Account()


@dataclass
class Party:
    """One runtime with a bundle of its own."""

    name: str
    program: list[str]
    bundle: Path
    environ: Mapping[str, str]
    processor: list[float] = field(default_factory=list)

    def call(self, *arguments: str) -> float:
        """Milliseconds of a command that must succeed; no pipe that a container could hold.

        Those of processor time go to ``processor``: of all that it started, in a cgroup of its own,
        with what goes on for a moment when it has ended.
        """
        before = ACCOUNT.milliseconds()
        started = time.perf_counter()
        subprocess.run(
            [*self.program, *arguments], check=True, env={**os.environ, **self.environ},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=ACCOUNT.enter,
        )  # fmt: skip
        taken = (time.perf_counter() - started) * 1000
        if ACCOUNT.settle:
            time.sleep(ACCOUNT.settle)
        self.processor.append(ACCOUNT.milliseconds() - before)
        return taken

    def create(self, name: str) -> float:
        return self.call("create", "--bundle", str(self.bundle), name)

    def start(self, name: str) -> float:
        return self.call("start", name)

    def delete(self, name: str) -> float:
        return self.call("delete", "--force", name)

    def end(self, name: str) -> None:
        """Kill the container and see it end; nobody's time."""
        runc = [RUNC, *self.program[1:3]]
        state = json.loads(subprocess.check_output([*runc, "state", name]))
        os.kill(state["pid"], signal.SIGKILL)
        end = time.monotonic() + 10
        while json.loads(subprocess.check_output([*runc, "state", name]))["status"] != "stopped":
            if time.monotonic() > end:
                raise TimeoutError(name)

    def copy(self, number: int) -> Party:
        """The same with a bundle for one more container."""
        bundle = self.bundle.with_name(f"{self.bundle.name}-{number}")
        bundle.mkdir()
        shutil.copy(self.bundle / "config.json", bundle)
        return Party(self.name, self.program, bundle, self.environ)


@contextmanager
def parties() -> Iterator[tuple[Party, Party, ClipMachine]]:
    """Plain runc on a directory, and clip-runc on an image of the same files, warm."""
    scratch = Path(tempfile.mkdtemp(prefix="clip-bench-", dir="/var/tmp"))
    (scratch / "indexes").mkdir()
    registry = DockerRegistry(scratch / "registry")
    machine = ClipMachine(scratch, scratch / "indexes", image_linger=3600)
    try:
        image = plain(scratch / "images")
        reference = push(image, registry.host, "bench/plain", "latest")
        bundle = machine.bundle(reference, "/bin/busybox", "sleep", "1000")
        machine.edit(bundle, lambda spec: spec["process"].update(terminal=False))
        rootfs = scratch / "rootfs"
        rootfs.mkdir()
        data = b"".join(unpacked(image.layers[0]))
        subprocess.run(["tar", "-xpC", rootfs], input=data, check=True)
        readonly = json.loads((bundle / "config.json").read_text())["root"].get("readonly", False)
        original = plain_bundle(bundle, scratch / "plain", rootfs, readonly=readonly)
        ours = Party("clip-runc", [str(machine.runtime), "--root", str(machine.root)], bundle,
                     machine.environ)  # fmt: skip
        theirs = Party("runc", [RUNC, "--root", str(scratch / "runc")], original, {})
        for party in (theirs, ours):
            once(party, "warm", ended=True)
        yield theirs, ours, machine
    finally:
        left = machine.sweep()
        registry.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    for line in left:
        print(f"left behind: {line}")


def once(party: Party, name: str, *, ended: bool) -> list[float]:
    """One life of a container: milliseconds of create, start and delete.

    ``ended``: it has ended when it is deleted, as it has when containerd or podman does that.
    """
    party.processor.clear()
    taken = [party.create(name), party.start(name)]
    if ended:
        party.end(name)
    return [*taken, party.delete(name)]
