"""Programs of arm64 below qemu-user, in the root that a guest gets too: unit tests, builds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.arm64.root import BORROWED, BUILT, Root, needs
from tests.integration.clip_machine import REPOSITORY
from tests.kernels.roots import DATA, VENV

# cli and telemetry are left out: nothing in them depends on a machine's architecture
ROOMS = ("linux", "index", "store", "registry", "fs", "images", "containers", "runtime")
ROOM_SECONDS = 7200
# emulated, a module that is compiled takes a second: assertions are not rewritten, and hypothesis
# is loaded by the tests that use it alone
PYTEST = (
    "-q -p no:cacheprovider -p no:hypothesispytest --assert=plain -o faulthandler_timeout=300"
    " --durations=10"
)
_SCRIPT = """\
set -e
tree=$1/tree
mount -o loop,ro,noload "$2" "$tree"
mount --bind "$3" "$tree/$4"
for name in proc dev sys; do mount --rbind /$name "$tree/$name"; done
for name in tmp var/tmp run; do mount --bind "$1/scratch" "$tree/$name"; done
for name in $5; do [ ! -e "/$name" ] || mount --bind "/$name" "$tree/$name"; done
shift 5
exec chroot "$tree" "$@"
"""
# CLIP_TEST_QEMU_USER: what the emulator lacks is no fault of the code; the guest runs those tests.
# TF_BUILD: hypothesis takes this for a machine of continuous integration: it has no limits of time
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LC_ALL": "C.UTF-8",
    "PYTHONPATH": DATA, "CLIP_TEST_QEMU_USER": "1",
    "TF_BUILD": "true",
}  # fmt: skip


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Where the root is mounted, and what is written in it; a copy of this tree for bytecode."""
    with tempfile.TemporaryDirectory(prefix="clip-arm64-", dir="/var/tmp") as name:
        for part in ("tree", "scratch"):
            Path(name, part).mkdir()
        Path(name, "scratch").chmod(0o1777)
        ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")
        shutil.copytree(REPOSITORY, Path(name, "repository"), ignore=ignored)
        yield Path(name)


def unit_tests(root: Root, room: str, place: Path, log: Path) -> tuple[bool, str]:
    """Did a room's tests pass, and pytest's closing lines; ``place`` is a ``scratch_directory``.

    Each processor has a share of the room's files.
    """
    files = sorted((REPOSITORY / "tests/unit" / room).glob("test_*.py"))
    names = [str(file.relative_to(REPOSITORY)) for file in files]
    processors = os.cpu_count() or 1
    shares = [share for number in range(processors) if (share := names[number::processors])]

    def passed(share: list[str]) -> tuple[bool, str]:
        pytest = f"cd {DATA}; exec {VENV}/bin/python -m pytest {PYTEST} {' '.join(share)}"
        return _emulate(root, pytest, place, log)

    with ThreadPoolExecutor(len(shares)) as pool:
        found = list(pool.map(passed, shares))
    return all(ok for ok, _ in found), "; ".join(_closing(said) for _, said in found)


def _closing(said: str) -> str:
    lines = re.findall(r"^[=\d].*\b(?:passed|failed|error).*$", said, re.MULTILINE)
    return lines[-1].strip("= ") if lines else said[-300:]


def builds(root: Root, place: Path, log: Path) -> tuple[bool, str]:
    """Does pip build what it has no wheels for?  Unoptimised: the compiler is emulated too."""
    names = " ".join(f"'{one}'" for one in needs() if one.startswith(BUILT))
    pip = f"CFLAGS=-O0 {VENV}/bin/pip wheel --no-deps --no-cache-dir -w /tmp/wheels {names}"
    ok, said = _emulate(root, f"{pip} && ls /tmp/wheels", place, log)
    wheels = re.findall(r"^\S+\.whl$", said, re.MULTILINE)
    return ok, ", ".join(wheels) if ok else said[-300:]


def _emulate(root: Root, shell: str, place: Path, log: Path) -> tuple[bool, str]:
    begun = time.monotonic()
    command = [
        "unshare", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child",
        "--propagation=private",
        "sh", "-c", _SCRIPT, "sh", place, root.disk, place / "repository", DATA[1:],
        " ".join(BORROWED), "/bin/sh", "-c", shell,
    ]  # fmt: skip
    # a file, which can be read while they run, and is there when they do not end
    with tempfile.TemporaryFile("w+", dir=place, errors="replace") as out:
        try:
            ok = not subprocess.run(
                command, env=_ENVIRONMENT, check=False, timeout=ROOM_SECONDS,
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            ).returncode  # fmt: skip
            ending = f"{time.monotonic() - begun:.0f} s"
        except subprocess.TimeoutExpired:
            ok, ending = False, f"nothing in {ROOM_SECONDS} s"
        out.seek(0)
        said = out.read()
    with log.open("a") as whole:
        whole.write(f"{shell}\n{said}\n{ending}\n")
    return ok, f"{said}\n{ending}"
