"""The image of the bench: Debian 12, Python and torch 2.7.1 with the CUDA libraries it brings.

Made from Debian's and Python's package networks in some minutes, kept in
``/var/cache/clip-runc-bench`` (about 15 GB while it is made, 9 GB after).  Three gzip
layers: the base system, Python with its build tools, site-packages.  The unpacked tree
is kept beside it: it is what plain runc starts from.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.integration.debian_images import SETTINGS, debootstrap, layers_of, paths_below
from tests.integration.image_maker import Image, cached, tar_stream, write_image, write_layer

CACHE = Path(os.environ.get("CLIP_BENCH_CACHE", "/var/cache/clip-runc-bench"))
PACKAGES = ["python3", "python3-pip", "build-essential", "ca-certificates"]
TORCH = "torch==2.7.1"
SITE = Path("usr/local/lib/python3.11/dist-packages")


def install_torch(tree: Path) -> None:
    """pip's wheels for the image's Python, whatever Python this machine has."""
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir",
        "--implementation=cp", "--python-version=3.11", "--only-binary=:all:",
        f"--target={tree / SITE}", TORCH, "numpy<2.3",
    ]  # fmt: skip
    subprocess.run(command, check=True)


def torch_image(cache: Path = CACHE) -> Image:
    """The image in its layout below ``cache``; the tree lies in ``cache/torch.tree``."""

    def make(layout: Path) -> Image:
        tree = cache / "torch.tree"
        shutil.rmtree(tree, ignore_errors=True)
        debootstrap(tree, PACKAGES)
        system = layers_of(tree, layout)
        before = set(paths_below(tree))
        install_torch(tree)
        added = set(paths_below(tree)) - before
        top = write_layer(layout, tar_stream(tree, added))
        return write_image(layout, [*system, top], SETTINGS)

    cache.mkdir(parents=True, exist_ok=True)
    return cached(cache / "torch", make)


def main() -> None:
    image = torch_image()
    sizes = ", ".join(f"{layer.size / 1e6:.0f} MB" for layer in image.layers)
    print(f"{image.layout}: {image.digest}: layers of {sizes}")


if __name__ == "__main__":
    main()
