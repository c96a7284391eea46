"""What a warm create loads and does, in an interpreter as the launcher starts it.

Needs root: the overlay is real; a directory stands for the image's mount.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.images import adding, local, mount
from clip_runc.linux.mount import unmount
from clip_runc.linux.mountinfo import mounts

REPOSITORY = Path(local.__file__).parents[2]
HEX = "ab" * 32

PROGRAM = """
import sys, time
began = time.perf_counter()
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
base = sys.argv[2]
from clip_runc.config import Settings
from clip_runc.containers.bundle import open_bundle, read_config, rewrite
from clip_runc.containers.key import key
from clip_runc.containers.prepare import prepare
from clip_runc.images.resolve import resolve
settings = Settings(state_dir=f"{base}/state", run_dir=f"{base}/run")
bundle = open_bundle(f"{base}/bundle")
resolved = resolve(settings, read_config(bundle).spec["annotations"], f"{base}/bundle/rootfs")
name = sys.argv[3]
prepared = prepare(settings, key(f"{base}/runc", name), resolved.image, nosuid=True,
                   root=f"{base}/runc", container_id=name, bundle=f"{base}/bundle")
rewrite(settings, prepared.state, bundle, lambda spec: spec["root"].update(path=prepared.rootfs))
spent = time.perf_counter() - began
loaded = sorted(set(sys.modules) - before)
import json
print(json.dumps([spent * 1000, loaded]))
"""

# 6 ms json, 5 socket, 4 re, 2.6 hashlib, and these are not even the heavy ones
FORBIDDEN = {
    "json", "re", "socket", "hashlib", "typing", "dataclasses", "pathlib", "logging", "enum",
    "subprocess", "tempfile", "shutil", "threading", "contextlib", "collections", "tomllib",
    "click", "trio", "requests", "oras", "zstandard", "clip_runc.registry.reference",
    "clip_runc.fs.client", "clip_runc.containers.teardown",
}  # fmt: skip


@pytest.fixture
def base() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="clip-hot-", dir="/var/tmp"))
    try:
        yield found
    finally:
        for one in reversed(mounts()):
            if one.target.startswith(f"{found}/"):
                unmount(one.target)
        shutil.rmtree(found)


def warm(base: Path) -> None:
    """An image that is indexed and mounted, and a bundle that names it."""
    settings = Settings(state_dir=f"{base}/state", run_dir=f"{base}/run")
    image = local.at(settings, HEX)
    os.makedirs(settings.index_dir)
    os.makedirs(settings.reference_dir)
    Path(image.erofs_path).touch()
    info: dict[str, object] = {"platform": local.host_platform()}
    adding.record(settings, image, info, ["docker.io/library/app:1"], [])
    target = f"{settings.image_mount_dir}/{HEX}"
    os.makedirs(f"{target}/bin")
    mount._write_note(target, "erofs", os.stat(target).st_dev, 0, (1, 0))
    (base / "runc").mkdir()
    (base / "bundle").mkdir()
    spec = {
        "root": {"path": "rootfs"},
        "annotations": {"io.kubernetes.cri.image-name": "docker.io/library/app:1"},
    }
    (base / "bundle/config.json").write_text(json.dumps(spec))


def test_a_warm_create_loads_little(base: Path) -> None:
    """Measured here: 5.2 ms imports (4 of them ctypes), 0.8 resolve, 1.7 prepare, 1.5 rewrite."""
    warm(base)
    for name in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", PROGRAM, str(REPOSITORY), str(base), name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    _spent, loaded = json.loads(done.stdout)
    assert FORBIDDEN & set(loaded) == set()
    assert len(loaded) <= 40, loaded
