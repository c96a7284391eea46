"""Create and delete again and again; see bench/cycles."""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.integration.clip_machine import ClipMachine, mounts_below

# clipd's allocator and caches may grow a little whatever is done
_MEMORY_KIB = 16 << 10


@dataclass
class Holdings:
    """What a machine of clip-runc holds: mounts, files, and its daemons' descriptors and memory."""

    mounts: int
    files: list[str]
    descriptors: int
    memory_kib: int

    @classmethod
    def of(cls, machine: ClipMachine) -> Holdings:
        status = machine.status()
        pids = [status[part]["pid"] for part in ("supervisor", "server")]
        files = [*machine.run_dir.rglob("*"), *(machine.state / "containers").rglob("*")]
        fuse = machine.run_dir / "fs"
        return cls(
            mounts=len(mounts_below(machine.directory)),
            files=sorted(str(path) for path in files if fuse not in path.parents),
            descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
            memory_kib=sum(resident(pid) for pid in pids),
        )

    def differences(self, before: Holdings) -> list[str]:
        """What is more than it was, in words."""
        found = [f"new: {path}" for path in self.files if path not in before.files]
        for name in ("mounts", "descriptors"):
            old, new = getattr(before, name), getattr(self, name)
            if new > old:
                found.append(f"{name}: {new} instead of {old}")
        if self.memory_kib > before.memory_kib + _MEMORY_KIB:
            found.append(f"memory: {self.memory_kib} KiB instead of {before.memory_kib}")
        return found


def resident(pid: int) -> int:
    """Resident memory of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def cycle(machine: ClipMachine, bundle: Path, times: int) -> None:
    """Create and delete one id so often; no pipe that the container could hold."""
    for _ in range(times):
        for arguments in (["create", "--bundle", str(bundle), "cycle"], ["delete", "-f", "cycle"]):
            subprocess.run(
                [machine.runtime, "--root", machine.root, *arguments], check=True, timeout=60,
                env={**os.environ, **machine.environ},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip


def main() -> None:
    from bench.warm import parties

    parser = argparse.ArgumentParser(prog="cycles")
    parser.add_argument("--cycles", type=int, default=1000)
    given = parser.parse_args()
    with parties() as (_, ours, machine):
        before = Holdings.of(machine)
        started = time.monotonic()
        cycle(machine, ours.bundle, given.cycles)
        taken = time.monotonic() - started
        after = Holdings.of(machine)
    print(f"{given.cycles} cycles in {taken:.0f} s")
    for name, one in (("before", before), ("after", after)):
        print(
            f"{name:<7} {one.mounts} mounts, {len(one.files)} files, "
            f"{one.descriptors} descriptors, {one.memory_kib} KiB"
        )
    print("\n".join(after.differences(before)) or "nothing left")


if __name__ == "__main__":
    main()
