"""A registry at the far end of a link: two network namespaces, a veth pair, tbf on both ends.

The link is this machine's own: addresses of 10.213.77.0/30, removed at the end.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.integration.daemons import REGISTRY_CONFIG, Daemon, wait_for

SPACE = "clip-bench"
NEAR, FAR = "clip-bench0", "clip-bench1"
NEAR_ADDRESS, FAR_ADDRESS = "10.213.77.1", "10.213.77.2"
PORT, DELAYED = 5147, 5148
BYTES_PER_MBIT = 125_000


def _run(*command: str, check: bool = True) -> None:
    subprocess.run(command, check=check, capture_output=not check)


def _inside(*command: str) -> list[str]:
    return ["ip", "netns", "exec", SPACE, *command]


def _shape(mbit: int, device: str, *prefix: str) -> None:
    """At most ``mbit``; the queue holds 50 ms."""
    rate = ["rate", f"{mbit}mbit", "burst", "512kb", "latency", "50ms"]
    _run(*prefix, "tc", "qdisc", "replace", "dev", device, "root", "tbf", *rate)


@contextmanager
def link(mbit: int) -> Iterator[None]:
    """The namespace ``clip-bench`` behind a link of ``mbit`` Mbit/s."""
    _run("ip", "netns", "del", SPACE, check=False)
    _run("ip", "netns", "add", SPACE)
    try:
        _run("ip", "link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", SPACE)
        _run("ip", "address", "add", f"{NEAR_ADDRESS}/30", "dev", NEAR)
        _run("ip", "link", "set", NEAR, "up")
        _run(*_inside("ip", "address", "add", f"{FAR_ADDRESS}/30", "dev", FAR))
        _run(*_inside("ip", "link", "set", FAR, "up"))
        _run(*_inside("ip", "link", "set", "lo", "up"))
        _shape(mbit, NEAR)
        _shape(mbit, FAR, *_inside())
        yield
    finally:
        _run("ip", "link", "del", NEAR, check=False)
        _run("ip", "netns", "del", SPACE, check=False)


class NearRegistry:
    """docker-registry on loopback, a part of what is measured; ``host`` is its name and port."""

    def __init__(self, host: str) -> None:
        self.host = host

    def blobs(self, *repositories: str) -> list[Path]:
        """Files that another machine has in its memory: none."""
        return []

    def cpu(self) -> float:
        """Seconds of our processors that would be another machine's."""
        return 0.0


class FarRegistry(NearRegistry):
    """docker-registry at the far end of a link."""

    def __init__(self, host: str, storage: Path, daemons: Sequence[Daemon]) -> None:
        super().__init__(host)
        self._storage = storage
        self._daemons = daemons

    def blobs(self, *repositories: str) -> list[Path]:
        """The files that hold the repositories' layers and configs.

        They lie in another machine's memory.  Here its disk, and the work of filling its page
        cache, would take from whoever is measured.
        """
        root = self._storage / "docker/registry/v2"
        names = {
            place.name
            for repository in repositories
            for place in (root / "repositories" / repository / "_layers/sha256").iterdir()
        }
        return sorted(root / "blobs/sha256" / name[:2] / name / "data" for name in names)

    def cpu(self) -> float:
        """What registry and relay took."""
        times = [psutil.Process(daemon.pid).cpu_times() for daemon in self._daemons]
        return sum(one.user + one.system for one in times)


@contextmanager
def far_registry(storage: Path, directory: Path, milliseconds: int) -> Iterator[FarRegistry]:
    """docker-registry on ``storage`` at the far end of the link."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "config.yml"
    text = REGISTRY_CONFIG.format(directory=storage, port=PORT)
    config.write_text(text.replace("127.0.0.1", "0.0.0.0"))
    daemons = [Daemon(_inside("docker-registry", "serve", str(config)), directory / "log")]
    port = PORT
    try:
        if milliseconds:
            port = DELAYED
            relay = [sys.executable, str(Path(__file__).with_name("delay.py"))]
            command = _inside(*relay, str(port), str(PORT), str(milliseconds))
            daemons.append(Daemon(command, directory / "delay.log"))
        wait_for(lambda: _answers(port), "the registry behind the link")
        yield FarRegistry(f"{FAR_ADDRESS}:{port}", storage, daemons)
    finally:
        for daemon in daemons:
            daemon.stop()


def _answers(port: int) -> bool:
    command = ["curl", "-sfm", "1", "-o", "/dev/null", f"http://{FAR_ADDRESS}:{port}/v2/"]
    return subprocess.run(command, check=False).returncode == 0
