"""Figures of the data plane: names, reads of what is here, the page cache, one large cold file.

What is compared runs in turns; see bench/data_plane.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.machine import Clip, drop_caches, registry
from bench.torch_image import CACHE, SITE, torch_image
from bench.workloads import WORKLOADS
from clip_runc import OverlayMounter
from clip_runc.fs.client import ensure_clipd
from clip_runc.images import local
from clip_runc.images.mount import mounted_images, unmount_image
from clip_runc.linux.mount import mount_erofs, unmount
from tests.integration.busybox_images import directory, entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import Blob, write_image, write_layer
from tests.integration.pushing import push

DIRECTORIES, FILES = 300, 99
NAMES = DIRECTORIES * (FILES + 1)
SIZE = 128 << 20
RANDOM_READS = 2000
SETTLE = 8.0  # seconds after which pages have been given back (store.residence)
HEAD = 1_000_000_000  # bytes of a layer that gzip -dc inflates at most
CUBLAS = SITE / "nvidia/cublas/lib/libcublasLt.so.12"
Samples = dict[str, list[float]]


class Scene:
    """A registry, and machines that have images of it, below /var/tmp."""

    def __init__(self, stack: ExitStack, storage: Path | None = None) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="clip-bench-", dir="/var/tmp")
        self.path = Path(stack.enter_context(scratch))
        (self.path / "indexes").mkdir()
        self.registry = DockerRegistry(storage or self.path / "registry")
        stack.callback(self.registry.stop)
        self._stack = stack

    def push(self, name: str, archive: bytes) -> str:
        """An image of one layer; its reference."""
        layout = self.path / name
        image = write_image(layout, [write_layer(layout, [archive])], {"Cmd": ["/x"]})
        return push(image, self.registry.host, f"bench/{name}", "1")

    def machine(self, **settings: object) -> ClipMachine:
        """clipd with a state of its own, until the end."""
        found = ClipMachine(self.path, self.path / "indexes", image_linger=3600, **settings)
        self._stack.callback(found.sweep)
        return found

    @contextmanager
    def mounted(self, machine: ClipMachine, reference: str) -> Iterator[Path]:
        """The image's overlay; nothing of its mount stays."""
        index = machine.index(reference)
        try:
            with OverlayMounter(settings=machine.settings).mount(str(index)) as mount:
                yield Path(mount.rootfs_path)
        finally:
            for image in mounted_images(machine.settings):
                unmount_image(machine.settings, image.manifest_hex)


@contextmanager
def scene(storage: Path | None = None) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack, storage)


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def noise(size: int) -> bytes:
    """Bytes that deflate halves."""
    source = random.Random(5)
    return b"".join(source.randbytes(1 << 19).hex().encode() for _ in range(size >> 20))


def in_sequence(path: Path) -> float:
    """MB/s of one reader of the whole file, a MiB at a time."""

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                continue

    return path.stat().st_size / 1e6 / timed(read)


def at_random(path: Path) -> float:
    """Reads of 4 KiB a second, one after the other."""
    places = random.Random(1)
    pages = path.stat().st_size // 4096

    def read() -> None:
        fd = os.open(path, os.O_RDONLY)
        for _ in range(RANDOM_READS):
            os.pread(fd, 4096, places.randrange(pages) * 4096)
        os.close(fd)

    return RANDOM_READS / timed(read)


def resident(path: str | Path) -> int:
    """Bytes of a file in the page cache."""
    command = ["fincore", "--bytes", "--noheadings", "--raw", "--output", "RES", str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def show(samples: Samples, unit: str, beside: str = "") -> None:
    """Medians, and their quotients with that of ``beside``."""
    medians = {name: statistics.median(values) for name, values in samples.items()}
    for name, value in medians.items():
        quotient = f"  {medians[beside] / value:5.2f} times {beside}'s" if beside else ""
        print(f"{name:<34} {value:10.1f} {unit}{quotient}")


def names() -> Iterator[str]:
    for number in range(DIRECTORIES):
        yield from (f"d{number}/file-{n}.py" for n in range(FILES))


def walk(rounds: int) -> None:
    """Names and attributes in tree mode: a walk, the same again, and one name after the other."""
    entries = [directory(f"d{number}") for number in range(DIRECTORIES)]
    archive = tar([*entries, *(entry(name, b"x = 1\n") for name in names())])
    samples: Samples = {}
    with scene() as found:
        machine = found.machine(layer_mode="tree")
        with found.mounted(machine, found.push("walk", archive)):
            root = next(Path(machine.settings.fuse_dir, "images").iterdir())
            command = ["find", str(root), "-size", "+1000k"]
            for _ in range(rounds):
                drop_caches()
                for label in ("walk with lstat", "the same again"):
                    took = timed(lambda: subprocess.run(command, check=True))
                    samples.setdefault(label, []).append(NAMES / took)
                drop_caches()
                fd = os.open(root, os.O_RDONLY)
                took = timed(lambda fd=fd: [os.lstat(name, dir_fd=fd) for name in names()])  # type: ignore[misc]  # binds the loop's value
                samples.setdefault("one name after the other", []).append(NAMES / took)
                os.close(fd)
    show(samples, "names/s")


def reads(rounds: int) -> None:
    """Local, verified data: EROFS on a complete layer, and through FUSE, beside ext4."""
    data = noise(SIZE)
    sequence: Samples = {}
    scattered: Samples = {}
    with scene() as found:
        reference = found.push("reads", tar([entry("data", data)]))
        (found.path / "data").write_bytes(data)
        lazy, whole = found.machine(layer_mode="tree"), found.machine(layer_mode="erofs")
        for machine in (lazy, whole):
            with found.mounted(machine, reference) as root:
                in_sequence(root / "data")
                time.sleep(1)
        with found.mounted(lazy, reference) as tree, found.mounted(whole, reference) as erofs:
            note = next(Path(whole.settings.image_mount_dir).glob("*.mount")).read_text().split()
            assert note[2] == "0", "the layer is not complete"
            with through_two_caches(whole, reference) as buffered:
                where = {
                    "ext4": found.path / "data",
                    "erofs, complete": erofs / "data",
                    "the same without directio": buffered / "data",
                    "tree (FUSE)": tree / "data",
                }
                for _ in range(rounds):
                    for name, path in where.items():
                        drop_caches()
                        sequence.setdefault(name, []).append(in_sequence(path))
                        drop_caches()
                        scattered.setdefault(name, []).append(at_random(path))
    print("in sequence, a MiB at a time")
    show(sequence, "MB/s", "ext4")
    print("at random, 4 KiB at a time")
    show(scattered, "reads/s", "ext4")


@contextmanager
def through_two_caches(machine: ClipMachine, reference: str) -> Iterator[Path]:
    """The image's EROFS on the store's file as it is without ``directio``."""
    image = local.find(machine.settings, reference)
    assert image is not None
    target = machine.directory / "buffered"
    target.mkdir()
    data = next(Path(machine.settings.store_dir).glob("*/data"))
    mount_erofs(image.erofs_path, [str(data)], str(target))
    try:
        yield target
    finally:
        unmount(str(target))


def cache(rounds: int) -> None:
    """How often a byte that was read cold is in memory, and what it costs to have it there once."""
    samples: Samples = {}
    kept: Samples = {}
    with scene() as found:
        reference = found.push("cache", tar([entry("data", noise(SIZE))]))
        for _ in range(rounds):
            for drop in (True, False):
                machine = found.machine(layer_mode="erofs", drop_pages=drop)
                label = f"drop_pages = {str(drop).lower()}"
                with found.mounted(machine, reference) as root:
                    drop_caches()
                    samples.setdefault(label, []).append(in_sequence(root / "data"))
                    time.sleep(SETTLE)
                    kept.setdefault(label, []).append(copies(machine, reference, root))
    print("cold, in sequence")
    show(samples, "MB/s")
    print(f"copies in memory {SETTLE:.0f} s later")
    show(kept, "")


def copies(machine: ClipMachine, reference: str, root: Path) -> float:
    """Bytes in the caches of the container's file, the FUSE file and the store's, by its size."""
    image = local.find(machine.settings, reference)
    assert image is not None
    with ensure_clipd(machine.settings) as clipd:
        answer = clipd.attach(image.manifest_hex, image.index_path)
    layers = answer["layers"]
    assert isinstance(layers, list)
    paths = [root / "data", f"{machine.settings.fuse_dir}/layers/{layers[0]['file']}"]
    paths.append(f"{machine.settings.store_dir}/{layers[0]['diff']}/data")
    return sum(map(resident, paths)) / SIZE


class Cold:
    """A file read cold, beside ``curl | gzip -dc`` of its layer: MB/s, and CPU seconds a GB.

    The second says what the first would be on a machine with nothing else to do.
    """

    def __init__(self, found: Scene, reference: str, layer: Blob, path: Path | str) -> None:
        self._found = found
        self._reference = reference
        name = reference.partition("/")[2].rpartition(":")[0]
        self._url = f"http://{found.registry.host}/v2/{name}/blobs/{layer.digest}"
        self._path = path
        self.speed: Samples = {}
        self.work: Samples = {}

    def once(self) -> None:
        """A round, in turns."""
        pipe = f"curl -sfL {self._url} | gzip -dc | head -c {HEAD} | wc -c"
        drop_caches()
        before = children_cpu()
        began = time.perf_counter()
        done = subprocess.run(["sh", "-c", pipe], check=True, capture_output=True, text=True)
        took, size = time.perf_counter() - began, int(done.stdout)
        self._add("curl | gzip -dc", size, took, children_cpu() - before)
        machine = self._found.machine(layer_mode="erofs")
        with self._found.mounted(machine, self._reference) as root:
            path = root / self._path
            drop_caches()
            pid = machine.status()["server"]["pid"]
            before, size = cpu(pid), path.stat().st_size
            self._add(
                "cold, through clipd", size, size / 1e6 / in_sequence(path), cpu(pid) - before
            )
        machine.ctl("stop")

    def _add(self, label: str, size: int, seconds: float, work: float) -> None:
        self.speed.setdefault(label, []).append(size / 1e6 / seconds)
        self.work.setdefault(label, []).append(work / (size / 1e9))

    def show(self) -> None:
        """Both tables."""
        show(self.speed, "MB/s")
        show(self.work, "CPU seconds a GB")


def children_cpu() -> float:
    """Seconds of CPU of the children that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu(pid: int) -> float:
    """Seconds of CPU of a process's threads that live."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def cold(rounds: int) -> None:
    """One file in a gzip layer that is not here, beside ``curl | gzip -dc``."""
    with scene() as found:
        layout = found.path / "cold"
        layer = write_layer(layout, [tar([entry("data", noise(SIZE))])])
        image = write_image(layout, [layer], {"Cmd": ["/x"]})
        reference = push(image, found.registry.host, "bench/cold", "1")
        compared = Cold(found, reference, layer, "data")
        for _ in range(rounds):
            compared.once()
    compared.show()


def torch(rounds: int) -> None:
    """The same with libcublasLt (491 MB) of the torch image."""
    image = torch_image()
    with scene(CACHE / "registry") as found:
        reference = push(image, found.registry.host, "bench/torch", "latest")
        layer = max(image.layers, key=lambda one: one.size)
        compared = Cold(found, reference, layer, CUBLAS)
        for _ in range(rounds):
            compared.once()
    compared.show()


def start(rounds: int) -> None:
    """Seconds of a cold start of the torch image, with a prefetch list, by ``drop_pages``."""
    work = WORKLOADS["torch"]
    samples: Samples = {}
    with registry() as daemon:
        clip = Clip(push(work.image(), daemon.host, "bench/torch", "latest"))
        try:
            clip.index()
            bundle = clip.bundle("work", *work.command)
            clip.record(*work.command)
            index = clip.directory / "list.clip"
            shutil.copy(clip.local_index(), index)
            for number in range(rounds):
                for drop in (True, False):
                    clip.use(index)
                    clip.machine.configure(drop_pages=drop)
                    clip.start()
                    drop_caches()
                    label = f"drop_pages = {str(drop).lower()}"
                    taken = clip.run(bundle, f"start{number}").first
                    samples.setdefault(label, []).append(taken)
        finally:
            clip.end()
    show(samples, "s")


def main() -> None:
    parts = {
        "walk": walk, "reads": reads, "cache": cache, "cold": cold, "torch": torch, "start": start
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*parts, []], default=["walk", "reads", "cache", "cold"]
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for part in options.parts:
        print(f"{part}: {parts[part].__doc__}")
        parts[part](options.rounds)


if __name__ == "__main__":
    main()
