"""Programs of other Debian releases, which run on this one: each with its release's libraries."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.integration.debian_images import apt_proxy, mirror

CACHE = Path("/var/cache/clip-runc-tests/versions")
_PACKAGES = (
    "runc", "crun", "containerd", "podman", "conmon", "netavark", "docker.io", "docker-cli",
)  # fmt: skip
_PROGRAMS = (
    "usr/sbin/runc", "usr/bin/crun", "usr/bin/containerd", "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr", "usr/bin/podman", "usr/bin/conmon", "usr/sbin/dockerd", "usr/bin/docker",
    "usr/sbin/docker-init", "usr/bin/docker-proxy", "usr/lib/podman/netavark",
)  # fmt: skip
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = f"{_LIBRARIES}/ld-linux-x86-64.so.2"


def programs(suite: str) -> Path:
    """The directory of a suite's programs, from the cache or made; for the head of ``PATH``."""
    name = hashlib.sha256(" ".join(_PACKAGES + _PROGRAMS).encode()).hexdigest()[:8]
    place = CACHE / f"{suite}-{name}"
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="clip-versions-", dir=CACHE) as scratch:
            tree = Path(scratch, "tree")
            _extract(suite, tree)
            part = Path(scratch, "part")
            (part / "bin").mkdir(parents=True)
            shutil.copytree(tree / _LIBRARIES, part / "lib", symlinks=True)
            for name in _PROGRAMS:
                if (tree / name).exists():
                    _adopt(tree / name, part / "bin", place)
            part.rename(place)
    return place / "bin"


def _extract(suite: str, tree: Path) -> None:
    command: list[str | Path] = [
        "mmdebstrap", "--quiet", "--mode=root", "--variant=extract",
        "--aptopt=Acquire::Languages none", "--aptopt=Acquire::Check-Valid-Until false",
        f"--include={','.join(_PACKAGES)}", suite, tree, mirror(),
    ]  # fmt: skip
    unshared = ["unshare", "--mount", "--propagation=private", *command]
    subprocess.run(unshared, check=True, env=os.environ | apt_proxy(), stdin=subprocess.DEVNULL)


def _adopt(program: Path, directory: Path, place: Path) -> None:
    """A copy that finds the release's loader and libraries where they will be kept."""
    copy = directory / program.name
    shutil.copy(program.resolve(), copy)
    asked = subprocess.run(
        ["patchelf", "--print-interpreter", copy], check=False, capture_output=True
    )
    if asked.returncode == 0:  # else it is static
        loader, libraries = place / "lib" / Path(_LOADER).name, place / "lib"
        subprocess.run(["patchelf", "--set-interpreter", loader, copy], check=True)
        subprocess.run(["patchelf", "--force-rpath", "--set-rpath", libraries, copy], check=True)
