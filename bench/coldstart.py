"""``bench/coldstart``: side by side in one run, alternating, against one registry.

The work is ``python3 -c "import torch"`` in a container.  Each figure is the median of the
rounds; a ratio is that of two medians of the same run.  The goals are those of the project.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from bench.machine import (
    RUNC,
    Clip,
    drop_caches,
    fresh_containerd,
    overlay,
    plain_bundle,
    registry,
    runc,
    timed,
)
from bench.torch_image import CACHE, torch_image
from tests.integration.pushing import push

WORK = "import torch; print(torch.__version__)"
WALK = """
import os, time
begin = time.monotonic()
count = 0
for directory, names, files in os.walk("/", topdown=True):
    if directory == "/":
        names[:] = [name for name in names if name not in ("proc", "sys", "dev")]
    for name in (*names, *files):
        os.lstat(os.path.join(directory, name))
        count += 1
print(time.monotonic() - begin, count)
"""
# what, our figure, the other's, and the most that the ratio (or difference) may be
COMPARED = {
    "cold": (
        "cold start / containerd's pull and start",
        "cold: clip-runc, run to output", "cold: containerd, together", 0.18,
    ),
    "warm": (
        "second start / runc on a directory",
        "warm: clip-runc, run to output", "warm: runc on a directory, to output", 1.2,
    ),
    "walk": ("lstat of every file / overlayfs", "walk: clip-runc", "walk: overlayfs", 0.8),
    "pass": ("a command that passes / runc", "pass: clip-runc, ms", "pass: runc, ms", 12.0),
}  # fmt: skip
console = Console(highlight=False)


class Verdict(NamedTuple):
    """One line of the table at the end; ``value`` is a ratio, or a difference in ms."""

    what: str
    ours: float
    theirs: float
    value: float
    goal: float


class Figures:
    """Samples by name, in seconds (or what the name says)."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        self.samples.setdefault(name, []).append(value)
        console.print(f"  {name:<42} {value:9.3f}")

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])


class Bench:
    """One run: the parties, and a method for each thing that is measured."""

    def __init__(self, reference: str, rounds: int) -> None:
        self.reference = reference
        self.rounds = rounds
        self.figures = Figures()
        self.clip = Clip(reference)
        self.tree = CACHE / "torch.tree"
        self.plain_root = CACHE / "runc"

    def prepare(self) -> None:
        """Index and bundles."""
        index = self.clip.index()
        size = index.stat().st_size / 1e6
        self.figures.add("index: seconds to make it", self.clip.index_seconds)
        self.figures.add("index: MB", size)
        self.work = self.clip.bundle("work", "python3", "-c", WORK)
        self.walk_bundle = self.clip.bundle("walk", "python3", "-c", WALK)

    def cold(self) -> None:
        """Nothing but the index there, page cache dropped; containerd has nothing either."""
        for number in range(self.rounds):
            self._containerd_cold(number)
            self._clip_cold(number)

    def _containerd_cold(self, number: int) -> None:
        with fresh_containerd() as containerd:
            drop_caches()
            base = ["ctr", "--address", str(containerd.socket)]
            pull = timed([*base, "image", "pull", "--plain-http", self.reference])
            run = timed(
                [*base, "run", "--rm", self.reference, f"cold{number}", "python3", "-c", WORK]
            )
            self.figures.add("cold: containerd, pull", pull.whole)
            self.figures.add("cold: containerd, run to output", run.first)
            self.figures.add("cold: containerd, together", pull.whole + run.first)

    def _clip_cold(self, number: int) -> None:
        self.clip.empty()
        self.clip.start()  # containerd runs too
        drop_caches()
        run = self.clip.run(self.work, f"cold{number}")
        self.figures.add("cold: clip-runc, run to output", run.first)
        self.figures.add("cold: clip-runc, MB fetched", self.clip.fetched() / 1e6)

    def warm(self) -> None:
        """The second start, nothing dropped; plain runc on the unpacked directory."""
        plain = plain_bundle(self.work, CACHE / "plain-work", self.tree, readonly=True)
        self.clip.run(self.work, "first")
        runc(plain, self.plain_root, "first")
        for number in range(max(5, self.rounds)):
            ours = self.clip.run(self.work, f"warm{number}")
            theirs = runc(plain, self.plain_root, f"warm{number}")
            self.figures.add("warm: clip-runc, run to output", ours.first)
            self.figures.add("warm: runc on a directory, to output", theirs.first)
        # what page cache, of which layer file, the same bytes sit in after this
        self.figures.add("warm: clip-runc, MB fetched", self.clip.fetched() / 1e6)

    def walk(self) -> None:
        """os.walk and lstat of every file, timed inside the container, caches dropped."""
        self.clip.run(self.walk_bundle, "walk-first")
        for number in range(self.rounds):
            with overlay(self.tree, CACHE / "overlay") as rootfs:
                path = CACHE / "plain-walk"
                plain = plain_bundle(self.walk_bundle, path, rootfs, readonly=False)
                drop_caches()
                self._walked("overlayfs", runc(plain, self.plain_root, f"w{number}").output)
            drop_caches()
            self._walked("clip-runc", self.clip.run(self.walk_bundle, f"w{number}").output)

    def _walked(self, who: str, output: str) -> None:
        seconds, count = output.split()
        self.figures.add(f"walk: {who}", float(seconds))
        self.figures.add(f"walk: {who}, files", float(count))

    def passing(self) -> None:
        """A command that passes through, by the installed launcher."""
        root = ["--root", str(CACHE / "runc"), "list"]
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(40):
            for command, samples in (
                ([RUNC, *root], theirs),
                ([str(self.clip.machine.runtime), *root], ours),
            ):
                samples.append(timed(command, self.clip.machine.environ).whole * 1e3)
        self.figures.add("pass: runc, ms", statistics.median(theirs))
        self.figures.add("pass: clip-runc, ms", statistics.median(ours))

    def verdicts(self) -> list[Verdict]:
        """What was measured of the goals."""
        found = []
        for name, (what, ours, theirs, goal) in COMPARED.items():
            if ours in self.figures.samples:
                left, right = self.figures.median(ours), self.figures.median(theirs)
                value = left - right if name == "pass" else left / right
                found.append(Verdict(what, left, right, value, goal))
        return found


def show(bench: Bench) -> None:
    """The table of ratios."""
    table = Table(title="Medians of one run", title_justify="left")
    table.add_column("")
    for name in ("clip-runc", "other", "ratio", "goal"):
        table.add_column(name, justify="right")
    for one in bench.verdicts():
        passing = one.what.startswith("a command")
        ratio = f"+{one.value:.1f} ms" if passing else f"{one.value:.3f}"
        unit = "ms" if passing else "s"
        met = "met" if one.value <= one.goal else "MISSED"
        table.add_row(
            one.what, f"{one.ours:.2f} {unit}", f"{one.theirs:.2f} {unit}", ratio,
            f"{one.goal:g} {met}",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every sample here")
    parser.add_argument("what", nargs="*", default=["cold", "warm", "walk", "pass"])
    options = parser.parse_args()
    image = torch_image()
    busy = os.getloadavg()[0]
    if busy > 0.5:
        console.print(f"[bold red]load average {busy:.1f}: others disturb these figures[/]")
    with registry() as daemon:
        reference = push(image, daemon.host, "bench/torch", "2.7.1")
        bench = Bench(reference, options.rounds)
        steps: dict[str, Callable[[], None]] = {
            "cold": bench.cold, "warm": bench.warm, "walk": bench.walk, "pass": bench.passing
        }  # fmt: skip
        try:
            begin = time.monotonic()
            bench.prepare()
            for name in options.what:
                console.print(f"[bold]{name}[/]")
                steps[name]()
        finally:
            bench.clip.end()
            shutil.rmtree(CACHE / "runc", ignore_errors=True)
    console.print(f"{image.compressed_size / 1e6:.0f} MB in {len(image.layers)} layers, ", end="")
    console.print(f"{options.rounds} rounds, {time.monotonic() - begin:.0f} s")
    show(bench)
    if options.json:
        options.json.write_text(json.dumps(bench.figures.samples, indent=1) + "\n")


if __name__ == "__main__":
    main()
