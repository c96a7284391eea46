"""A machine whose plug is pulled, again and again: what was on its disk is checked, then work goes
on until the next cut.  What work, and which round it is, the host says (``kind``, ``round``).

The disk's file system commits every second and is not kind to renames, as XFS is not: what was
not synced is lost or empty after a cut.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from tests.kernels.guest.commands import arguments, run
from tests.kernels.guest.installed import HOST, RUNTIME, install, registry, units, write_bundle
from tests.kernels.guest.reading import expected, read_hash
from tests.kernels.guest.reporting import report

STATE = Path("/var/lib/clip")
HOME = Path("/root/power")
NAMES = ("alpha", "beta")
IDS = ("one", "two")
BUSY_SECONDS = 300
# An image and half of the next: layers have to go while others are read.
SETTINGS = "store_limit = 6000000\nimage_linger = 1\n"


def images() -> dict[str, dict[str, str]]:
    """By the reference of an image: the SHA-256 of each file."""
    return {f"{HOST}/power/{name}:1": expected(f"power/{name}") for name in NAMES}


def unkind() -> str:
    """The file system as it must not matter."""
    run("mount", "-o", "remount,noauto_da_alloc,commit=1", "/")
    errors = [line for line in run("dmesg").splitlines() if "EXT4-fs error" in line]
    assert not errors, errors
    return ""


def settings() -> str:
    """Before clipd starts."""
    Path("/etc/clip-runc").mkdir()
    Path("/etc/clip-runc/config.toml").write_text(SETTINGS)
    return ""


def first() -> str:
    """An index of each image and a bundle for each id."""
    HOME.mkdir()
    for reference, container in zip(images(), IDS, strict=True):
        run("clipctl", "index", "--quiet", reference)
        bundle = HOME / container
        write_bundle(str(bundle), "sleep", "100000", reference=reference)
        shutil.copy(bundle / "config.json", HOME / f"{container}.json")
    os.sync()
    return ""


def indexes() -> str:
    """An image indexed anew is the same bytes as ever, with the layers' cache as the cut left it
    or, every other time, without."""
    number = int(arguments()["round"]) % len(IDS)
    reference, file = list(images())[number], "/run/again.clip"
    if number:
        shutil.rmtree(STATE / "layer-indexes", ignore_errors=True)
    run("clipctl", "index", "--quiet", "--no-store", "-o", file, reference)
    again = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    kept = HOME / f"{number}.digest"
    if not kept.exists():
        kept.write_text(again)
        os.sync()
    assert kept.read_text() == again, (kept.read_text(), again)
    return f"index of {reference} is {again}"


def same_ids() -> str:
    """The ids of before, from the bundles of before."""
    for container in IDS:
        run(RUNTIME, "run", "--detach", "--bundle", str(HOME / container), container)
        assert run(RUNTIME, "exec", container, "cat", "/srv/data/a") == "one\n"
    return ""


def rootfs(container: str) -> str:
    """Where the host sees what the container sees."""
    pid = json.loads(run(RUNTIME, "state", container))["pid"]
    return f"/proc/{pid}/root"


def served() -> str:
    """Every file of every image, through its container; nothing may be wrong or fail."""
    count = 0
    for container, files in zip(IDS, images().values(), strict=True):
        root = rootfs(container)
        wrong = [path for path, digest in files.items() if read_hash(f"{root}/{path}") != digest]
        assert not wrong, wrong
        count += len(files)
    return f"{count} files right"


def store() -> str:
    """What is bad on disk is found, and forgotten: none the second time."""
    first = run("clipctl", "store", "verify", check=False)
    run("clipctl", "store", "verify")
    return f"{sum(int(line.split()[-2]) for line in first.splitlines())} chunks were bad"


def tidy() -> str:
    """The ids go, their bundles are as they were, and no file is there that nobody knows."""
    for container in IDS:
        run(RUNTIME, "delete", "--force", container)
        made, kept = (HOME / name for name in (f"{container}/config.json", f"{container}.json"))
        assert json.loads(made.read_text()) == json.loads(kept.read_text()), container
    run("clipctl", "gc")
    containers = [path.name for path in (STATE / "containers").glob("[!.]*")]
    assert not containers, containers
    unknown = [str(path) for path in STATE.rglob("*") if path.is_file() and not known(path)]
    assert not unknown, unknown
    return ""


def known(path: Path) -> bool:
    """Is it a file that there is a reason for?"""
    place = path.relative_to(STATE).parts
    if place[0] == "store":
        return path.name in ("data", "record", ".lock")
    return path.name == ".lock" or not (path.name.startswith(".") or path.suffix == ".tmp")


def busy() -> str:
    """Work of one kind until the plug is pulled; says what it is at."""
    kind = arguments()["kind"]
    begun = time.monotonic()
    for step in WORK[kind]():
        report(busy=step)
        if time.monotonic() > begun + BUSY_SECONDS:
            raise AssertionError("nobody pulled the plug")
    raise AssertionError("the work came to an end")


def fetch() -> Iterator[str]:
    """Cold reads."""
    for number in itertools.count():
        for container in IDS:
            run(RUNTIME, "delete", "--force", container, check=False)
        time.sleep(1.5)  # longer than an image lingers
        run("clipctl", "store", "prune")
        for container in IDS:
            run(RUNTIME, "run", "--detach", "--bundle", str(HOME / container), container)
        for container, files in zip(IDS, images().values(), strict=True):
            root = rootfs(container)
            for path, digest in files.items():
                yield f"fetch {number} {container} {path}"
                assert read_hash(f"{root}/{path}") == digest


def evict() -> Iterator[str]:
    """The same; each image is let go of when it was read, so that the next one takes its place."""
    for number in itertools.count():
        for container, files in zip(IDS, images().values(), strict=True):
            for other in IDS:
                run(RUNTIME, "delete", "--force", other, check=False)
            time.sleep(1.5)
            run(RUNTIME, "run", "--detach", "--bundle", str(HOME / container), container)
            root = rootfs(container)
            for path, digest in files.items():
                yield f"evict {number} {container} {path}"
                assert read_hash(f"{root}/{path}") == digest


def build() -> Iterator[str]:
    """Indexes, each made anew and put in the place of the old one."""
    for number in itertools.count():
        for reference in images():
            yield f"index {number} {reference}"
            shutil.rmtree(STATE / "layer-indexes", ignore_errors=True)
            for path in (STATE / "indexes").glob("*.json"):
                if reference in path.read_text():
                    path.unlink()
            run("clipctl", "index", "--quiet", reference)


def create() -> Iterator[str]:
    """Containers come and go."""
    for number in itertools.count():
        for container in IDS:
            yield f"create {number} {container}"
            run(RUNTIME, "delete", "--force", container)
            run(RUNTIME, "run", "--detach", "--bundle", str(HOME / container), container)


WORK = {"fetch": fetch, "evict": evict, "index": build, "create": create}
_LOOK = (registry, same_ids, served, indexes, store)
_FIRST = (settings, install, units, registry, first)
_LAST = tidy if arguments()["kind"] == "none" else busy
CHECKS = (unkind, *_LOOK, _LAST) if HOME.exists() else (unkind, *_FIRST, *_LOOK[1:], _LAST)
