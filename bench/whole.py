"""Images that are read whole, and images that nobody has indexed; see bench/whole."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from bench.link import NearRegistry, far_registry, link
from bench.machine import Clip, drop_caches, fresh_containerd, registry, timed
from bench.torch_image import CACHE
from bench.workloads import WORKLOADS, Workload
from tests.integration.image_maker import Image
from tests.integration.pushing import push

READ_ALL = ("/bin/sh", "-c", "find / -xdev -type f -exec cat {} + > /dev/null; echo done")
# what, our figure, the other's, goal on loopback, goal over a link
COMPARED = (
    ("read whole / containerd", "read whole", "containerd, read whole", 1.0, 1.0),
    ("not indexed / containerd", "not indexed", "containerd", 0.45, None),
    ("not indexed / bare download", "not indexed", "download", None, 1.15),
)
console = Console(highlight=False)


class Case:
    """One image at one registry."""

    def __init__(self, workload: Workload, image: Image, source: NearRegistry) -> None:
        self.source = source
        self.served = source.blobs(f"bench/{workload.name}")
        self.workload = workload
        self.image = image
        self.reference = f"{source.host}/bench/{workload.name}:latest"
        self.samples: dict[str, list[float]] = {}
        self.clip = Clip(self.reference, plain_http=[source.host])

    def add(self, name: str, value: float) -> None:
        self.samples.setdefault(name, []).append(value)
        console.print(f"    {name:<28} {value:9.2f}")

    def prepare(self) -> None:
        """Bundles, and an index to read whole by."""
        self.clip.index()
        self.all = self.clip.bundle("all", *READ_ALL)
        self.work = self.clip.bundle("work", *self.workload.command)
        self.kept = self.clip.directory / "kept.clip"
        shutil.copy(self.clip.local_index(), self.kept)

    def once(self, number: int) -> None:
        """A round, in turns."""
        self.add("download", self._download())
        self._containerd("containerd", f"c{number}", self.workload.command)
        self._nothing_there()
        far = self.source.cpu()
        self.add("not indexed", self.clip.run(self.work, f"new{number}").first)
        self.add("not indexed, far CPU", self.source.cpu() - far)
        self._containerd("containerd, read whole", f"w{number}", READ_ALL)
        self.clip.use(self.kept)
        self.clip.start()
        drop_caches(self.served)
        self.add("read whole", self.clip.run(self.all, f"all{number}").first)
        self.add("read whole, MB fetched", self.clip.fetched() / 1e6)

    def _nothing_there(self) -> None:
        self.clip.empty()
        shutil.rmtree(self.clip.machine.settings.index_dir)
        shutil.rmtree(self.clip.machine.settings.layer_index_dir, ignore_errors=True)
        self.clip.start()
        drop_caches(self.served)

    def _download(self) -> float:
        """Seconds to get all layers and throw them away, one after the other."""
        drop_caches(self.served)
        host, _, name = self.reference.rpartition(":")[0].partition("/")
        begin = time.monotonic()
        for layer in self.image.layers:
            url = f"http://{host}/v2/{name}/blobs/{layer.digest}"
            subprocess.run(["curl", "-sfL", "-o", "/dev/null", url], check=True)
        return time.monotonic() - begin

    def _containerd(self, label: str, name: str, command: tuple[str, ...]) -> None:
        with fresh_containerd() as containerd:
            drop_caches(self.served)
            base = ["ctr", "--address", str(containerd.socket)]
            pull = timed([*base, "image", "pull", "--plain-http", self.reference])
            run = timed([*base, "run", "--rm", self.reference, name, *command])
            self.add(label, pull.whole + run.first)

    def figures(self) -> dict[str, float]:
        """Medians, and the quotients."""
        found = {name: statistics.median(values) for name, values in self.samples.items()}
        for what, ours, theirs, _, _ in COMPARED:
            found[what] = found[ours] / found[theirs]
        return found


def show(title: str, figures: dict[str, dict[str, float]], *, loopback: bool) -> None:
    """Seconds and quotients, with the goals."""
    seconds = ("download", "containerd", "not indexed", "containerd, read whole", "read whole")
    table = Table("image", *seconds, title=title, title_justify="left")
    for image, found in figures.items():
        table.add_row(image, *(f"{found[name]:.2f}" for name in seconds))
    console.print(table)
    for image, found in figures.items():
        for what, _, _, near, far in COMPARED:
            goal = near if loopback else far
            met = "" if goal is None else f"  goal {goal}: {'met' if found[what] <= goal else 'no'}"
            console.print(f"  {image:<10} {what:<30} {found[what]:.2f}{met}")


def run(names: list[str], mbit: int, milliseconds: int, rounds: int) -> dict[str, dict[str, float]]:
    """Every image over one link (0: loopback)."""
    images = {name: WORKLOADS[name].image() for name in names}
    with registry() as daemon:
        for name, image in images.items():
            push(image, daemon.host, f"bench/{name}", "latest")
        if not mbit:
            near = NearRegistry(daemon.host)
            return {name: _case(name, images[name], near, rounds) for name in names}
    storage = CACHE / "registry/storage"
    with link(mbit), far_registry(storage, CACHE / "far", milliseconds) as far:
        return {name: _case(name, images[name], far, rounds) for name in names}


def _case(name: str, image: Image, source: NearRegistry, rounds: int) -> dict[str, float]:
    console.print(f"  [bold]{name}[/]")
    case = Case(WORKLOADS[name], image, source)
    try:
        case.prepare()
        for number in range(rounds):
            case.once(number)
    finally:
        case.clip.end()
    return case.figures()


def main() -> None:
    parser = argparse.ArgumentParser(prog="whole", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--link", type=int, action="append", metavar="MBIT",
        help="speed of a link, 0 for loopback; may come more than once (default: 0 and 1000)",
    )  # fmt: skip
    parser.add_argument("--latency", type=int, default=3, metavar="MS", help="of a link, both ways")
    parser.add_argument("--json", type=Path, help="write every median here")
    parser.add_argument("images", nargs="*", default=["postgres", "torch"])
    options = parser.parse_args()
    busy = os.getloadavg()[0]
    if busy > 0.5:
        console.print(f"[bold red]load average {busy:.1f}: others disturb these figures[/]")
    found = {}
    for mbit in [0, 1000] if options.link is None else options.link:
        title = f"{mbit} Mbit/s, {options.latency} ms" if mbit else "loopback"
        found[title] = run(options.images, mbit, options.latency, options.rounds)
        show(f"{title}: seconds, medians", found[title], loopback=not mbit)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
