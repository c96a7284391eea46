"""``bench/coldstart matrix``: five images over links of 1 Gbit/s and 200 Mbit/s.

For each link and image, in turn and in every round: containerd's pull and run with nothing
there; clip-runc with the index and nothing else, without and with a prefetch list; its second
start; plain runc on the unpacked tree.  Both daemons run before anything is timed, and all end
at the container's first line of output.  The lower bound is what nobody can beat who fetches
whole chunks: the compressed bytes of the chunks that the start touches, over the link's measured
speed, and a warm start of plain runc.
"""

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
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from bench import picture
from bench.link import NearRegistry, far_registry, link
from bench.machine import (
    Clip,
    Timed,
    drop_caches,
    fresh_containerd,
    overlay,
    plain_bundle,
    registry,
    runc,
    timed,
)
from bench.torch_image import CACHE
from bench.workloads import WORKLOADS, Workload
from tests.integration.pushing import push

console = Console(highlight=False)
Samples = dict[str, list[float]]


class Case:
    """One image over one link."""

    def __init__(self, workload: Workload, source: NearRegistry, rate: float) -> None:
        self.source = source
        self.served = source.blobs(f"bench/{workload.name}")
        self.workload = workload
        self.reference = f"{source.host}/bench/{workload.name}:latest"
        self.rate = rate
        self.samples: Samples = {}
        self.clip = Clip(self.reference, plain_http=[source.host])

    def add(self, name: str, value: float) -> None:
        self.samples.setdefault(name, []).append(value)
        console.print(f"    {name:<28} {value:9.2f}")

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

    def prepare(self) -> None:
        """The index without a list, the same with one, and the unpacked tree's bundle."""
        self.clip.index()
        self.bundle = self.clip.bundle("work", *self.workload.command)
        self.bare, self.listed = (self.clip.directory / f"{name}.clip" for name in ("bare", "list"))
        shutil.copy(self.clip.local_index(), self.bare)
        touched = self.clip.record(*self.workload.command)
        shutil.copy(self.clip.local_index(), self.listed)
        self.add("MB of touched chunks", touched / 1e6)

    def once(self, number: int) -> None:
        """A round."""
        self._containerd(number)
        for name, index in (("no list", self.bare), ("list", self.listed)):
            self.clip.use(index)
            self.clip.start()
            drop_caches(self.served)
            far = self.source.cpu()
            self.add(name, self.clip.run(self.bundle, f"cold{number}").first)
            self.add(f"{name}, MB fetched", self.clip.fetched() / 1e6)
            self.add(f"{name}, far CPU", self.source.cpu() - far)
        self.clip.run(self.bundle, f"again{number}")
        self.add("warm", self.clip.run(self.bundle, f"warm{number}").first)
        self._plain(f"first{number}")
        self.add("plain runc, warm", self._plain(f"plain{number}").first)

    def _plain(self, name: str) -> Timed:
        with overlay(self.workload.tree, CACHE / "overlay") as rootfs:
            bundle = plain_bundle(self.bundle, CACHE / "plain-matrix", rootfs, readonly=False)
            return runc(bundle, CACHE / "runc", name)

    def _containerd(self, number: int) -> None:
        with fresh_containerd() as containerd:
            drop_caches(self.served)
            base = ["ctr", "--address", str(containerd.socket)]
            pull = timed([*base, "image", "pull", "--plain-http", self.reference])
            command = [self.reference, f"cold{number}", *self.workload.command]
            run = timed([*base, "run", "--rm", *command])
            self.add("containerd", pull.whole + run.first)

    def figures(self) -> dict[str, float]:
        """Medians, the lower bound, and the ratios that have goals."""
        found = {name: self.median(name) for name in self.samples}
        wire = found["MB of touched chunks"] * 1e6 / self.rate
        found["lower bound"] = wire + found["plain runc, warm"]
        for name in ("no list", "list"):
            found[f"{name} / containerd"] = found[name] / found["containerd"]
        found["list / lower bound"] = found["list"] / found["lower bound"]
        found["fetched / touched"] = found["list, MB fetched"] / found["MB of touched chunks"]
        return found


def measured_rate(host: str, seconds: float = 3) -> float:
    """Bytes a second that curl gets from the registry over this link."""
    blobs = sorted((CACHE / "registry/storage").rglob("data"), key=lambda path: path.stat().st_size)
    digest = f"sha256:{blobs[-1].parent.name}"
    for repository in _repositories(host):
        url = f"http://{host}/v2/{repository}/blobs/{digest}"
        command = ["curl", "-sfL", "-m", str(seconds), "-o", "/dev/null", "-w", "%{speed_download}"]
        done = subprocess.run([*command, url], check=False, capture_output=True, text=True)
        if float(done.stdout or 0) > 1e5:
            return float(done.stdout)
    raise SystemExit("no blob of the registry could be read to measure the link")


def _repositories(host: str) -> list[str]:
    command = ["curl", "-sf", f"http://{host}/v2/_catalog"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[str] = json.loads(done.stdout)["repositories"]
    return found


def show(title: str, figures: dict[str, dict[str, float]]) -> None:
    """A table of one link: ``none`` and ``list`` are clip-runc, ``MB/MB`` fetched / touched."""
    table = Table(title=title, title_justify="left")
    columns = {
        "containerd": "ctrd", "no list": "none", "list": "list", "warm": "warm",
        "lower bound": "bound", "no list / containerd": "none/ctrd",
        "list / containerd": "list/ctrd", "list / lower bound": "list/bound",
        "fetched / touched": "MB/MB",
    }  # fmt: skip
    table.add_column("image")
    for name in columns.values():
        table.add_column(name, justify="right")
    for image, found in figures.items():
        table.add_row(image, *(f"{found[name]:.2f}" for name in columns))
    console.print(table)


def run(names: list[str], mbit: int, milliseconds: int, rounds: int) -> dict[str, Any]:
    """Every image over one link (0: loopback)."""
    figures: dict[str, dict[str, float]] = {}
    with registry() as daemon:
        for name in names:
            push(WORKLOADS[name].image(), daemon.host, f"bench/{name}", "latest")
        if not mbit:
            _cases(names, NearRegistry(daemon.host), rounds, figures)
            return figures
    storage = CACHE / "registry/storage"
    with link(mbit), far_registry(storage, CACHE / "far", milliseconds) as far:
        _cases(names, far, rounds, figures)
    return figures


def _cases(
    names: list[str], source: NearRegistry, rounds: int, figures: dict[str, dict[str, float]]
) -> None:
    rate = measured_rate(source.host)
    console.print(f"[bold]{source.host}: {rate / 1e6:.0f} MB/s[/]")
    for name in names:
        console.print(f"  [bold]{name}[/]")
        case = Case(WORKLOADS[name], source, rate)
        try:
            case.prepare()
            for number in range(rounds):
                case.once(number)
        finally:
            case.clip.end()
            shutil.rmtree(CACHE / "runc", ignore_errors=True)
        figures[name] = case.figures()


def arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--link", type=int, action="append", metavar="MBIT",
        help="speed of a link, 0 for loopback; may come more than once (default: 1000 and 200)",
    )  # fmt: skip
    parser.add_argument("--latency", type=int, default=3, metavar="MS", help="of a link, both ways")
    parser.add_argument("--json", type=Path, help="write every median here")
    parser.add_argument("--svg", type=Path, help="draw the starts here")
    parser.add_argument("images", nargs="*", default=[], choices=[[], *WORKLOADS])
    return parser


def main() -> None:
    options = arguments().parse_args()
    begin = time.monotonic()
    busy = os.getloadavg()[0]
    if busy > 0.5:
        console.print(f"[bold red]load average {busy:.1f}: others disturb these figures[/]")
    found = {}
    for mbit in options.link or [1000, 200]:
        title = f"{mbit} Mbit/s, {options.latency} ms" if mbit else "loopback"
        found[title] = run(options.images or list(WORKLOADS), mbit, options.latency, options.rounds)
        show(f"{title}: seconds to the first line of output, medians", found[title])
    console.print(f"{options.rounds} rounds, {time.monotonic() - begin:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(picture.bars(found))


if __name__ == "__main__":
    main()
