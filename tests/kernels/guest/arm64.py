"""What tests/arm64 has a guest do: calls by number on a real kernel, and a container by hand.

Its root has no systemd; what the matrix does with it is done by hand here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.kernels.guest.commands import DATA, run, wait_for
from tests.kernels.guest.installed import (
    COMMAND,
    RUNTIME,
    VENV,
    WANTED,
    index,
    left,
    status,
    write_bundle,
)

_CONFIG = """\
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: /var/lib/clip-test-registry}}
http: {addr: "127.0.0.1:5000", secret: none}
"""


def install() -> str:
    """The wheel by pip, then the launcher: what the README says."""
    (wheel,) = Path(DATA).glob("*.whl")
    run(f"{VENV}/bin/pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel))
    run(f"{VENV}/bin/clipctl", "install")
    return run("clipctl", "--version").strip()


def registry() -> str:
    """docker-registry, whose blobs came on the disk."""
    shutil.copytree(f"{DATA}/registry", "/var/lib/clip-test-registry")
    Path("/etc/test-registry.yml").write_text(_CONFIG)
    subprocess.Popen(["docker-registry", "serve", "/etc/test-registry.yml"])

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", 5000)) == 0

    wait_for(listens, "docker-registry listens", 120)
    return "serves"


def container() -> str:
    """create, start, exec and delete, by runc's own commands, on an image fetched as it is read."""
    assert os.uname().machine == "aarch64"
    write_bundle("/root/bundle", "sleep", "100000")
    run(RUNTIME, "create", "--bundle", "/root/bundle", "hand")
    run(RUNTIME, "start", "hand")
    assert run(RUNTIME, "exec", "hand", *COMMAND.split()) == WANTED
    digest = run(RUNTIME, "exec", "hand", "sha256sum", "/srv/data/big").split()[0]
    assert digest == hashlib.sha256(b"0123456789abcdef" * 65536).hexdigest()
    mode = status()["mode"]
    run(RUNTIME, "delete", "--force", "hand")
    return f"mode {mode}"


def nothing_left() -> str:
    """After ``gc`` and ``stop``."""
    run("clipctl", "gc")
    run("clipctl", "stop")
    wait_for(lambda: not left(), "nothing of ours is left")
    return ""


def calls() -> str:
    """The unit tests of ``clip_runc/linux``: mounts, loop devices, seccomp, Landlock, ioctls."""
    pytest = (
        f"{VENV}/bin/python -m pytest -q -p no:cacheprovider -p no:hypothesispytest --assert=plain"
    )
    # of hypothesis: no deadlines, and its examples not beside the tests, on a read-only disk
    settings = "TF_BUILD=true HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis"
    said = run("sh", "-c", f"cd {DATA}; exec env {settings} {pytest} tests/unit/linux", seconds=900)
    return said.strip().splitlines()[-1]


CHECKS = (install, registry, index, container, nothing_left, calls)
