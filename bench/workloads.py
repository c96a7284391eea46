"""The images of ``bench/coldstart matrix`` and what a container of each does until it is ready.

Made from Debian's and Python's package networks, kept below ``/var/cache/clip-runc-bench``.
Every command ends by itself soon after it printed its first line: that line is "ready".
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.torch_image import CACHE, torch_image
from tests.integration.debian_images import SETTINGS, debootstrap, layers_of
from tests.integration.image_maker import Image, cached, write_image

NODE = """
const http = require("http");
const server = http.createServer((request, response) => response.end("hello"));
server.listen(8080, "127.0.0.1", () => http.get("http://127.0.0.1:8080/", (response) => {
  response.on("data", () => {}).on("end", () => {
    console.log("answered", response.statusCode); process.exit();
  });
}));
"""
# As the official image starts for the first time: a new cluster, then the server.
POSTGRES = """
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
install -d -o postgres /var/lib/pg /run/postgresql
run() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
run initdb --no-sync -D /var/lib/pg >/tmp/initdb.log 2>&1
run postgres -D /var/lib/pg >/tmp/postgres.log 2>&1 &
until run pg_isready -q; do sleep 0.02; done
echo accepting
run pg_ctl -D /var/lib/pg -m immediate stop >/dev/null
"""


class Workload(NamedTuple):
    """An image, where its unpacked tree is kept, and the command that is run in it."""

    name: str
    image: Callable[[], Image]
    tree: Path
    command: tuple[str, ...]


def _debian(name: str, packages: list[str]) -> Callable[[], Image]:
    """Debian 12 with ``packages``: a layer of the base system and one of the rest."""

    def make(layout: Path) -> Image:
        tree = CACHE / f"{name}.tree"
        shutil.rmtree(tree, ignore_errors=True)
        debootstrap(tree, packages)
        return write_image(layout, layers_of(tree, layout), SETTINGS)

    return lambda: cached(CACHE / name, make)


def _of_debian(name: str, packages: list[str], *command: str) -> Workload:
    return Workload(name, _debian(name, packages), CACHE / f"{name}.tree", command)


WORKLOADS = {
    one.name: one
    for one in (
        _of_debian("true", ["python3", "python3-pip"], "/bin/sh", "-c", "/bin/true; echo done"),
        _of_debian(
            "numpy", ["python3", "python3-numpy"],
            "python3", "-c", "import numpy; print(numpy.__version__)",
        ),
        _of_debian("node", ["nodejs"], "node", "-e", NODE),
        _of_debian("postgres", ["postgresql"], "/bin/sh", "-c", POSTGRES),
        Workload(
            "torch", torch_image, CACHE / "torch.tree",
            ("python3", "-c", "import torch; print(torch.__version__)"),
        ),
    )
}  # fmt: skip


def main() -> None:
    """Make every image."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for one in WORKLOADS.values():
        image = one.image()
        print(f"{one.name}: {image.compressed_size / 1e6:.0f} MB in {len(image.layers)} layers")


if __name__ == "__main__":
    main()
