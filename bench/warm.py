"""A warm image and the same files for plain runc: what the benches of the shim start from."""

from __future__ import annotations

import json
import os
import resource
import shutil
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

        Those of processor time go to ``processor``: without what the command left behind.
        """
        before = processor_time()
        started = time.perf_counter()
        subprocess.run(
            [*self.program, *arguments], check=True, env={**os.environ, **self.environ},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        taken = (time.perf_counter() - started) * 1000
        self.processor.append(processor_time() - before)
        return taken

    def create(self, name: str) -> float:
        return self.call("create", "--bundle", str(self.bundle), name)

    def start(self, name: str) -> float:
        return self.call("start", name)

    def delete(self, name: str) -> float:
        return self.call("delete", "--force", name)

    def copy(self, number: int) -> Party:
        """The same with a bundle for one more container."""
        bundle = self.bundle.with_name(f"{self.bundle.name}-{number}")
        bundle.mkdir()
        shutil.copy(self.bundle / "config.json", bundle)
        return Party(self.name, self.program, bundle, self.environ)


def processor_time() -> float:
    """Milliseconds of all children that were waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


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
            once(party, "warm")
        yield theirs, ours, machine
    finally:
        left = machine.sweep()
        registry.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    for line in left:
        print(f"left behind: {line}")


def once(party: Party, name: str) -> list[float]:
    """One life of a container: milliseconds of create, start and delete."""
    party.processor.clear()
    return [party.create(name), party.start(name), party.delete(name)]
