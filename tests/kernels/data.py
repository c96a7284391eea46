"""The disk that a guest gets beside its root: the wheel, a registry's storage, the programs."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

from tests.integration.busybox_images import SETTINGS, base_layer, entry, middle_layer, tar
from tests.integration.clip_machine import REPOSITORY
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import Image, write_image, write_layer
from tests.integration.pushing import push
from tests.kernels.roots import run

_BIG_BYTES = 8 << 20
# Images whose machine loses its power; a layer of each is compressed as named.
_POWER = {"power/alpha": "gzip", "power/beta": "zstd"}
_SMALL, _SMALL_BYTES = 64, 64 << 10
_PROGRAMS = Path("tests/kernels/guest")
_NOT_SOURCE = (".git", "__pycache__", ".*_cache", ".hypothesis", "dist")


def data_disk(scratch: Path, *, source: bool = False) -> Path:
    """Make it in ``scratch``; raises ``RuntimeError`` where something cannot be made.

    ``source``: this repository is on it too, as it is.
    """
    tree = scratch / "data"
    tree.mkdir()
    made, expected = images(scratch / "layout")
    registry = DockerRegistry(scratch / "registry")
    try:
        for name, image in made.items():
            push(image, registry.host, name, "1")
    finally:
        registry.stop()
    shutil.copytree(scratch / "registry/storage", tree / "registry")
    (tree / "expected.json").write_text(json.dumps(expected))
    (tree / _PROGRAMS).mkdir(parents=True)
    for path in (REPOSITORY / _PROGRAMS).glob("*.py"):
        shutil.copy(path, tree / _PROGRAMS)
    wheel(tree)
    if source:
        shutil.copytree(REPOSITORY, tree / "source", ignore=shutil.ignore_patterns(*_NOT_SOURCE))
    disk = scratch / "data.ext4"
    run(["mkfs.ext4", "-q", "-F", "-d", tree, disk, "256M"], scratch / "mkfs.log")
    return disk


def images(layout: Path) -> tuple[dict[str, Image], dict[str, str]]:
    """Images by their repositories; the SHA-256 of files of theirs, by ``REPOSITORY:PATH``."""
    rand = random.Random(10)
    base, middle = (
        write_layer(layout, [base_layer()]),
        write_layer(layout, [middle_layer()], "zstd"),
    )
    settings = {"Env": SETTINGS["Env"], "Cmd": ["/bin/busybox", "sleep", "100000"]}
    found: dict[str, Image] = {"team/plain": write_image(layout, [base], settings)}
    expected: dict[str, str] = {}
    contents = {"team/lazy": ("gzip", {"srv/big": _BIG_BYTES})}
    for name, compression in _POWER.items():
        contents[name] = (compression, {f"srv/{number}": _SMALL_BYTES for number in range(_SMALL)})
    for name, (compression, sizes) in contents.items():
        files = {path: rand.randbytes(size // 2).hex().encode() for path, size in sizes.items()}
        layer = tar([entry(path, data) for path, data in files.items()])
        layers = [base, middle, write_layer(layout, [layer], compression)]
        found[name] = write_image(layout, layers, settings)
        for path, data in files.items():
            expected[f"{name}:{path}"] = hashlib.sha256(data).hexdigest()
    return found, expected


def wheel(directory: Path) -> None:
    """Build the wheel that the guests install."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the wheel cannot be built:\n{done.stdout}{done.stderr}")
