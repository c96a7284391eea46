"""``bench/published``: what indexing by others' tables costs, and that it gives the same image.

Each format is one image, made once by its real tool; the full index and the one by tables are of
that same image.  Requests are counted by the registry, so they are those on loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from bench.link import far_registry, link
from bench.torch_image import CACHE
from bench.workloads import WORKLOADS
from clip_runc import OverlayMounter
from clip_runc.registry.client import Registry
from clip_runc.registry.reference import Reference
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import REGISTRY_CONFIG, Containerd, Daemon, free_port, wait_for
from tests.integration.pushing import push
from tests.integration.whole_tree import differences, walk

HERE = Path(__file__).resolve().parent
WORK = CACHE / "published"
console = Console(width=160)


class Counting(Daemon):
    """docker-registry that says on which requests it answered."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        config = directory / "config.yml"
        text = REGISTRY_CONFIG.format(directory=directory / "storage", port=port)
        config.write_text(text.replace("disabled: true", "disabled: false"))
        (directory / "log").unlink(missing_ok=True)
        super().__init__(["docker-registry", "serve", str(config)], directory / "log")
        wait_for(self._reached, "docker-registry")

    def _reached(self) -> bool:
        command = ["curl", "-sfm", "1", "-o", "/dev/null", f"http://{self.host}/v2/"]
        return subprocess.run(command, check=False).returncode == 0

    def requests(self) -> int:
        """Requests for manifests and blobs so far."""
        lines = self.log.read_text(errors="replace").splitlines()
        return sum('"GET /v2/' in line and "/v2/ " not in line for line in lines)


@contextmanager
def containerd() -> Iterator[Containerd]:
    directory = WORK / "containerd"
    shutil.rmtree(directory, ignore_errors=True)
    daemon = Containerd(directory)
    try:
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(directory)


def by_ctr_remote(*options: str) -> Callable[[str, str], None]:
    def convert(plain: str, target: str) -> None:
        with containerd() as daemon:
            daemon.ctr("image", "pull", "--plain-http", plain, seconds=600, check=True)
            command = ["ctr-remote", "--address", str(daemon.socket), "image", "convert", "--oci"]
            subprocess.run([*command, *options, plain, target], check=True, capture_output=True)
            daemon.ctr("image", "push", "--plain-http", target, seconds=600, check=True)

    return convert


def by_soci(command: str) -> Callable[[str, str], None]:
    def convert(plain: str, target: str) -> None:
        with containerd() as daemon:
            daemon.ctr("image", "pull", "--plain-http", plain, seconds=600, check=True)
            daemon.ctr("image", "tag", plain, target, check=True)
            soci = ["soci", "--address", str(daemon.socket), "--root", str(daemon.directory / "s")]
            least = ["--min-layer-size", "0"]
            if command == "convert":
                target = f"{target}-2"
                subprocess.run([*soci, "convert", *least, plain, target], check=True,
                               capture_output=True)  # fmt: skip
            daemon.ctr("image", "push", "--plain-http", target, seconds=600, check=True)
            if command == "create":
                for what in (["create", *least], ["push", "--plain-http"]):
                    subprocess.run([*soci, *what, target], check=True, capture_output=True)

    return convert


def by_containers_image(plain: str, target: str) -> None:
    program = WORK / "zstd_chunked"
    if not program.exists():
        source = WORK / "zstd_chunked.go"
        shutil.copytree(HERE / "zstd_chunked", source, dirs_exist_ok=True)
        tags = "containers_image_openpgp exclude_graphdriver_btrfs"
        environ = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
        for command in (["tidy"], ["build", "-tags", tags, "-o", str(program), "."]):
            command = ["mod", *command] if command == ["tidy"] else command
            subprocess.run(["go", *command], cwd=source, env=environ, check=True,
                           capture_output=True)  # fmt: skip
    command = [str(program), f"docker://{plain}", f"docker://{target}"]
    subprocess.run(command, check=True, capture_output=True)


FORMATS: dict[str, tuple[str, str, str, Callable[[str, str], None]]] = {
    # name: program, tag, tag that it is found under, how
    "eStargz": ("ctr-remote", "esgz", "esgz", by_ctr_remote("--estargz")),
    "zstd:chunked (containers)": ("go", "zstdc", "zstdc", by_containers_image),
    "zstd:chunked (stargz)": ("ctr-remote", "zstds", "zstds", by_ctr_remote("--zstdchunked")),
    "SOCI 1": ("soci", "soci", "soci", by_soci("create")),
    "SOCI 2": ("soci", "soci", "soci-2", by_soci("convert")),
}


def converted(host: str, name: str, formats: list[str]) -> Iterator[tuple[str, str]]:
    """Formats whose tool is here, and the image in the format, made if it is not there."""
    plain = push(WORKLOADS[name].image(), host, f"published/{name}", "latest")
    for format_ in formats:
        program, tag, found, convert = FORMATS[format_]
        if shutil.which(program) is None:
            console.print(f"{format_}: no {program} on PATH")
            continue
        reference = f"{host}/published/{name}:{found}"
        made = WORK / f"{name}-{found}"
        if not made.exists():
            begin = time.monotonic()
            convert(plain, f"{host}/published/{name}:{tag}")
            console.print(f"{format_} of {name} made in {time.monotonic() - begin:.0f} s")
            made.touch()
        with Registry(Reference.parse(reference), plain_http=True) as registry:
            registry.manifest()
        yield format_, reference


class Machine:
    """clip-runc with nothing learnt, for one index after the other."""

    def __init__(self, host: str) -> None:
        self.clip = ClipMachine(WORK, WORK, plain_http=[host], trusted_registries=[host])

    def index(self, reference: str, how: str) -> tuple[Path, dict[str, Any]]:
        shutil.rmtree(self.clip.state, ignore_errors=True)
        path = self.clip.directory / f"index{how}.clip"
        done = self.clip.ctl(
            "index", how, "--json", "--no-store", "-o", path, reference, check=True
        )
        result: dict[str, Any] = json.loads(done.stdout)
        assert how == "--full" or not result["warnings"], result["warnings"]
        return path, result

    def compare(self, one: Path, two: Path) -> int:
        trees = []
        for path in (one, two):
            with OverlayMounter(settings=self.clip.settings).mount(path) as mount:
                trees.append(walk(mount.rootfs_path))
        found = [line for line in differences(*trees) if line[0]]
        assert not found, found[:5]
        return len(trees[0])

    def end(self) -> None:
        self.clip.sweep()


def measure(reference: str, counted: Counting | None) -> dict[str, float]:
    machine = Machine(reference.partition("/")[0])
    figures: dict[str, float] = {}
    try:
        paths = []
        for how in ("--full", "--published"):
            before = counted.requests() if counted else 0
            path, result = machine.index(reference, how)
            name = how.strip("-")
            figures[f"{name} s"] = result["seconds"]
            figures[f"{name} MB"] = result["fetched"] / 1e6
            if counted:
                figures[f"{name} requests"] = counted.requests() - before
            figures[f"{name} index MB"] = result["size"] / 1e6
            paths.append(path)
        if counted:
            figures["paths compared"] = machine.compare(*paths)
    finally:
        machine.end()
    return figures


def show(title: str, found: dict[str, dict[str, float]]) -> None:
    columns = list(dict.fromkeys(key for row in found.values() for key in row))
    table = Table("image", *columns, title=title)
    for name, row in found.items():
        table.add_row(name, *(f"{row[key]:.4g}" if key in row else "" for key in columns))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--link", type=int, metavar="MBIT", help="and over a link of this speed")
    parser.add_argument("--latency", type=int, default=3, metavar="MS", help="of the link")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--format", action="append", choices=FORMATS, help="only this; repeatable")
    parser.add_argument("images", nargs="*", default=["node", "postgres"])
    options = parser.parse_args()
    options.format = options.format or list(FORMATS)
    WORK.mkdir(parents=True, exist_ok=True)
    daemon = Counting(WORK / "registry")
    near, far = {}, {}
    made: list[tuple[str, str]] = []
    try:
        for image in options.images:
            for format_, reference in converted(daemon.host, image, options.format):
                label = f"{image}, {format_}"
                made.append((label, reference.partition("/")[2]))
                near[label] = measure(reference, daemon)
    finally:
        daemon.stop()
    show("registry on loopback", near)
    if options.link:
        storage = WORK / "registry/storage"
        with link(options.link), far_registry(storage, WORK / "far", options.latency) as there:
            for label, rest in made:
                far[label] = measure(f"{there.host}/{rest}", None)
        show(f"{options.link} Mbit/s, {options.latency} ms", far)
    if options.json:
        options.json.write_text(json.dumps({"loopback": near, "link": far}, indent=1) + "\n")


if __name__ == "__main__":
    main()
