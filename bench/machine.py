"""The parties of the bench: a registry with the image, containerd, runc, clip-runc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.torch_image import CACHE
from clip_runc.fs.client import ensure_clipd
from clip_runc.images.local import find
from clip_runc.images.mount import mounted_images, unmount_image
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import Containerd, DockerRegistry, wait_for

RUNC = shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "runc"


@dataclass
class Timed:
    """Seconds from the start of a command to its first line of output, and to its end."""

    first: float
    whole: float
    output: str


def timed(command: list[str], environ: dict[str, str] | None = None) -> Timed:
    """Run a command that must succeed."""
    begin = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **(environ or {})},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        first = time.monotonic() - begin
        rest = process.stdout.read()
        status = process.wait()
    if status:
        raise SystemExit(f"{' '.join(command)} exited with {status}")
    return Timed(first, time.monotonic() - begin, line + rest)


def drop_caches(served: Iterable[Path] = ()) -> None:
    """Write what is dirty and forget what is clean: pages, inodes, dentries.

    ``served`` are files that another machine would have in its memory: they are read anew.
    """
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    for path in served:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                continue


class Clip:
    """clip-runc with its state in the bench's cache, the index made anew."""

    def __init__(self, reference: str, **settings: object) -> None:
        self.reference = reference
        self.directory = CACHE / "clip"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        kept = self.directory / "indexes"
        kept.mkdir()
        chosen = {"read_timeout": 60, "image_linger": 300, **settings}
        self.machine = ClipMachine(self.directory, kept, **chosen)
        self.index_seconds = 0.0

    def index(self) -> Path:
        """The index of the image, and how long it took to make."""
        begin = time.monotonic()
        path = self.machine.index(self.reference)
        self.index_seconds = time.monotonic() - begin
        return path

    def bundle(self, name: str, *command: str) -> Path:
        """A bundle that runs ``command``."""
        path = self.machine.bundle(self.reference, *command, name=name)
        self.machine.edit(path, lambda spec: spec["process"].update(terminal=False))
        return path

    def run(self, bundle: Path, name: str) -> Timed:
        """``clip-runc run``."""
        program = [str(self.machine.runtime), "--root", str(self.machine.root)]
        return timed([*program, "run", "--bundle", str(bundle), name], self.machine.environ)

    def record(self, *command: str) -> int:
        """Have what ``command`` reads noted in the index; compressed bytes of those chunks."""
        path = f"{self.machine.bin}:{os.environ['PATH']}"  # another clip-runc may be installed
        done = self.machine.ctl(
            "record", "--json", self.reference, "--", *command,
            check=True, seconds=600, environ={"PATH": path},
        )  # fmt: skip
        return int(json.loads(done.stdout)["bytes"])

    def local_index(self) -> Path:
        """The file of the image in the index store."""
        found = find(self.machine.settings, self.reference)
        assert found is not None
        return Path(found.index_path)

    def use(self, index: Path) -> None:
        """Put another index of the same image in its place; nothing else stays."""
        self.empty()
        shutil.copy(index, self.local_index())

    def start(self) -> None:
        """Start clipd, as systemd does at boot, and wait until its server serves.

        The first container does it where nobody did.
        """
        with ensure_clipd(self.machine.settings):
            pass
        machine = self.machine
        wait_for(lambda: machine.status()["server"]["state"] == "serving", "clipd's server")

    def empty(self) -> None:
        """As on a machine that has the index and nothing else: no store, no mount, no clipd."""
        settings = self.machine.settings
        for image in mounted_images(settings):
            unmount_image(settings, image.manifest_hex)
        self.machine.ctl("stop", check=True)
        shutil.rmtree(self.machine.state / "store", ignore_errors=True)

    def fetched(self) -> int:
        """Bytes fetched from the registry since clipd started."""
        return int(self.machine.status().get("fetched", 0))

    def end(self) -> None:
        """Stop clipd and remove the state."""
        for line in self.machine.sweep():
            print(f"left behind: {line}", file=sys.stderr)


def plain_bundle(original: Path, path: Path, rootfs: Path, *, readonly: bool) -> Path:
    """The same bundle for plain runc on a directory."""
    path.mkdir(exist_ok=True)
    spec: dict[str, Any] = json.loads((original / "config.json").read_text())
    spec["root"] = {"path": str(rootfs), "readonly": readonly}
    spec["annotations"] = {}
    (path / "config.json").write_text(json.dumps(spec))
    return path


def runc(bundle: Path, root: Path, name: str) -> Timed:
    """Plain ``runc run``."""
    return timed([RUNC, "--root", str(root), "run", "--bundle", str(bundle), name])


@contextmanager
def overlay(lower: Path, directory: Path) -> Iterator[Path]:
    """The unpacked directory under overlayfs, as containerd would mount it."""
    places = [directory / name for name in ("upper", "work", "merged")]
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    upper, work, merged = places
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "bench", "-o", options, merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


@contextmanager
def registry() -> Iterator[DockerRegistry]:
    """docker-registry with storage that stays."""
    daemon = DockerRegistry(CACHE / "registry", 5147)
    try:
        yield daemon
    finally:
        daemon.stop()


@contextmanager
def fresh_containerd() -> Iterator[Containerd]:
    """A containerd that has nothing yet; removed with all it pulled."""
    directory = CACHE / "containerd"
    shutil.rmtree(directory, ignore_errors=True)
    daemon = Containerd(directory)
    try:
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(directory)
