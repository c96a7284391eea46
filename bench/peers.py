"""``bench/coldstart peers``: other lazy snapshotters beside clip-runc, over the same link.

Those whose programs are in PATH take part: each with the image in its own format, made once by its
own tool (bench/published has the same ones), a containerd that has nothing, and its daemon running
before anything is timed.  Timed is pull and run, to the container's first line of output; clip-runc
has the index and nothing else, with a prefetch list and without one.  SOCI needs a containerd that
is younger than 1.6.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from bench.link import FarRegistry, far_registry, link
from bench.machine import Clip, drop_caches, registry, timed
from bench.published_tables import WORK, converted
from bench.torch_image import CACHE
from bench.workloads import WORKLOADS
from tests.integration.daemons import CONTAINERD_CONFIG, Containerd, Daemon, wait_for
from tests.integration.pushing import push

console = Console(highlight=False)
PROXY = """
[proxy_plugins.{name}]
  type = "snapshot"
  address = "{socket}"
"""


class Peer(NamedTuple):
    """``format`` is one of bench/published; ``daemon`` and ``client`` are programs.

    ``pull`` are the client's words between its address and the reference, ``config`` the text of
    the daemon's configuration, with the registry's ``{host}``.
    """

    name: str
    format: str
    daemon: str
    client: str
    pull: tuple[str, ...]
    config: str

    def missing(self) -> list[str]:
        """Programs that are not in PATH."""
        return [one for one in (self.daemon, self.client) if shutil.which(one) is None]


PEERS = (
    Peer(
        "stargz", "eStargz", "containerd-stargz-grpc", "ctr-remote",
        ("images", "rpull", "--plain-http"),
        '[[resolver.host."{host}".mirrors]]\nhost = "{host}"\ninsecure = true\n',
    ),
    Peer(
        # soci has no pull of its own any more; ctr-remote gives the labels that it reads
        "soci", "SOCI 2", "soci-snapshotter-grpc", "ctr-remote",
        ("images", "rpull", "--plain-http", "--snapshotter", "soci", "--use-containerd-labels"),
        '[[resolver.host."{host}".mirrors]]\nhost = "http://{host}"\ninsecure = true\n',
    ),
)  # fmt: skip


@contextmanager
def served(peer: Peer, host: str) -> Iterator[Containerd]:
    """A containerd that has nothing, with the peer's snapshotter."""
    directory = CACHE / "peers"
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "containerd").mkdir(parents=True)
    config, socket = directory / "config.toml", directory / "snapshotter.sock"
    config.write_text(peer.config.format(host=host))
    command = [peer.daemon, "--address", str(socket), "--root", str(directory / "root")]
    command += ["--config", str(config), "--log-level", "warn"]
    daemons: list[Daemon] = [Daemon(command, directory / "log")]
    try:
        wait_for(socket.exists, peer.daemon)
        text = CONTAINERD_CONFIG.format(
            directory=directory / "containerd", version=2,
            disabled='"io.containerd.grpc.v1.cri"',
        ) + PROXY.format(name=peer.name, socket=socket)  # fmt: skip
        daemons.append(Containerd(directory / "containerd", text=text))
        found = daemons[-1]
        assert isinstance(found, Containerd)
        yield found
    finally:
        for daemon in reversed(daemons):
            daemon.stop()
        for target in sorted(_mounts_below(directory), reverse=True):
            os.system(f"umount --lazy {target}")
        shutil.rmtree(directory)


def _mounts_below(directory: Path) -> dict[str, str]:
    """Mount points and their file systems' types."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    found = {line.split()[4]: line.partition(" - ")[2].split()[0] for line in lines}
    return {target: kind for target, kind in found.items() if target.startswith(f"{directory}/")}


def peer_start(
    peer: Peer, reference: str, command: tuple[str, ...], number: int, blobs: Sequence[Path]
) -> float:
    """Seconds of its pull, and of its run to the first line."""
    with served(peer, reference.partition("/")[0]) as containerd:
        drop_caches(blobs)
        address = ["--address", str(containerd.socket)]
        pull = timed([peer.client, *address, *peer.pull, reference])
        words = ["run", "--rm", "--snapshotter", peer.name, reference, f"cold{number}", *command]
        run = timed(["ctr", *address, *words])
        if not any(kind.startswith("fuse") for kind in _mounts_below(CACHE / "peers").values()):
            raise SystemExit(f"{peer.name} unpacked {reference}: see {CACHE / 'peers/log'}")
        return pull.whole + run.first


class OurOwn:
    """clip-runc on the plain image, without a list and with one."""

    def __init__(self, reference: str, command: tuple[str, ...]) -> None:
        self.clip = Clip(reference, plain_http=[reference.partition("/")[0]])
        self.clip.index()
        self.bundle = self.clip.bundle("work", *command)
        self.indexes = {name: self.clip.directory / f"{name}.clip" for name in ("no list", "list")}
        shutil.copy(self.clip.local_index(), self.indexes["no list"])
        self.clip.record(*command)
        shutil.copy(self.clip.local_index(), self.indexes["list"])

    def start(self, name: str, number: int, blobs: Sequence[Path]) -> float:
        """Seconds to the first line."""
        self.clip.use(self.indexes[name])
        self.clip.start()
        drop_caches(blobs)
        return self.clip.run(self.bundle, f"{name.replace(' ', '-')}{number}").first


def measure(
    image: str, far: FarRegistry, peers: dict[str, Peer], rounds: int
) -> dict[str, list[float]]:
    """Every party in turn, ``rounds`` times."""
    workload, found = WORKLOADS[image], {}
    blobs = far.blobs(f"bench/{image}", f"published/{image}")
    own = OurOwn(f"{far.host}/bench/{image}:latest", workload.command)
    try:
        for number in range(rounds):
            for name in own.indexes:
                found.setdefault(f"clip-runc, {name}", []).append(own.start(name, number, blobs))
            for tag, peer in peers.items():
                reference = f"{far.host}/published/{image}:{tag}"
                seconds = peer_start(peer, reference, workload.command, number, blobs)
                found.setdefault(peer.name, []).append(seconds)
    finally:
        own.clip.end()
    return found


def arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--link", type=int, default=1000, metavar="MBIT")
    parser.add_argument("--latency", type=int, default=3, metavar="MS")
    parser.add_argument("--json", type=Path, help="write every sample here")
    parser.add_argument("images", nargs="*", default=[], choices=[[], *WORKLOADS])
    return parser


def main() -> None:
    options = arguments().parse_args()
    images = options.images or ["numpy"]
    here = []
    for peer in PEERS:
        if missing := peer.missing():
            console.print(f"{peer.name}: not in PATH: {', '.join(missing)}")
        else:
            here.append(peer)
    if not here:
        raise SystemExit("none of the others is here")
    WORK.mkdir(parents=True, exist_ok=True)
    references: dict[str, dict[str, Peer]] = {image: {} for image in images}
    with registry() as daemon:
        for image in images:
            push(WORKLOADS[image].image(), daemon.host, f"bench/{image}", "latest")
            for name, reference in converted(daemon.host, image, [peer.format for peer in here]):
                (peer,) = [one for one in here if one.format == name]
                references[image][reference.rpartition(":")[2]] = peer
    begin = time.monotonic()
    with (
        link(options.link),
        far_registry(CACHE / "registry/storage", CACHE / "far", options.latency) as far,
    ):
        found = {image: measure(image, far, references[image], options.rounds) for image in images}
    title = f"{options.link} Mbit/s, {options.latency} ms: seconds to the first line, medians"
    table = Table(title=title, title_justify="left")
    names = list(dict.fromkeys(name for samples in found.values() for name in samples))
    for column in ("image", *names):
        table.add_column(column, justify="left" if column == "image" else "right")
    for image, samples in found.items():
        table.add_row(image, *(f"{statistics.median(samples[name]):.2f}" for name in names))
    console.print(table)
    console.print(f"{options.rounds} rounds, {time.monotonic() - begin:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
