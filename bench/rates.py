"""Many creates at once; see bench/rates."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.cycles import resident
from bench.warm import Party, parties
from tests.integration.clip_machine import ClipMachine, processes_of

BATCH = 25


def name_of(party: Party, number: int) -> str:
    """An id: of the party's own, since it is also the name of the cgroup."""
    return f"rates-{party.name}-{number}"


def batch(party: Party, numbers: range, parallel: int) -> float:
    """Seconds that so many creates took, of a bundle each."""
    copies = [party.copy(number) for number in numbers]
    names = [name_of(party, number) for number in numbers]
    started = time.monotonic()
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(Party.create, copies, names))
    return time.monotonic() - started


def deleted(party: Party, number: int, parallel: int) -> float:
    """Seconds that deleting them all took."""
    names = [name_of(party, one) for one in range(number)]
    started = time.monotonic()
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(party.delete, names))
    return time.monotonic() - started


def clipd_kib(machine: ClipMachine) -> int:
    status = machine.status()
    return sum(resident(status[part]["pid"]) for part in ("supervisor", "server", "keeper"))


def slab_kib() -> int:
    """What the kernel holds for its own structures: superblocks and inodes of mounts too."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Slab:"))


def ours_running(machine: ClipMachine) -> int:
    """Processes of ours: those of the launcher, its hook and clipd; not the containers' own."""
    found = processes_of([str(machine.bin), "clip_runc"])
    return len([pid for pid, words in found.items() if str(machine.directory) in words])


def main() -> None:
    parser = argparse.ArgumentParser(prog="rates")
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--parallel", type=int, default=8)
    given = parser.parse_args()
    with parties() as (theirs, ours, machine):
        processes, clipd = ours_running(machine), clipd_kib(machine)
        seconds = {theirs.name: 0.0, ours.name: 0.0}
        slab = {theirs.name: 0, ours.name: 0}
        for first in range(0, given.number, BATCH):
            numbers = range(first, min(first + BATCH, given.number))
            for party in (theirs, ours):
                before = slab_kib()
                seconds[party.name] += batch(party, numbers, given.parallel)
                slab[party.name] += slab_kib() - before
        grown, more = clipd_kib(machine) - clipd, ours_running(machine) - processes
        sides = (theirs, ours)
        ends = {party.name: deleted(party, given.number, given.parallel) for party in sides}
    for name, taken in seconds.items():
        print(
            f"{name:<10} {given.number / taken:6.1f} created a second, "
            f"{given.number / ends[name]:6.1f} deleted; "
            f"kernel structures {slab[name] / given.number:.0f} KiB a container"
        )
    print(f"ratio of the rates of create: {seconds[theirs.name] / seconds[ours.name]:.2f}")
    share = grown / given.number
    print(f"clipd grew by {share:.1f} KiB a container; {more} more processes of ours")


if __name__ == "__main__":
    main()
