"""Who pays, in cgroups v2: a container for what it touches, clipd's unit for what clipd does."""

from __future__ import annotations

import os
from pathlib import Path

from tests.kernels.guest.commands import run
from tests.kernels.guest.installed import (
    BIG,
    RUNTIME,
    cgroup,
    index,
    install,
    processes,
    registry,
    status,
    units,
    write_bundle,
)
from tests.kernels.guest.reading import expected

ROOT = Path("/sys/fs/cgroup")
OWN = ROOT / "clip-accounting/one"
UNIT = ROOT / "system.slice/clipd.service"
LIMIT = 64 << 20
WRITTEN = 16 << 20
BIG_BYTES = 8 << 20


def inside(*command: str, check: bool = True) -> str:
    """A command in the container."""
    return run(RUNTIME, "exec", "one", *command, check=check)


def stat(group: Path, file: str, name: str) -> int:
    """A number out of a flat-keyed file, or the sum over all devices in io.stat."""
    words = (group / file).read_text().split()
    if file == "io.stat":
        return sum(int(word.partition("=")[2]) for word in words if word.startswith(f"{name}="))
    return int(dict(zip(words[::2], words[1::2], strict=True))[name])


def memory_limit() -> str:
    """``memory.max`` is on the container's cgroup; clipd is in its own unit's, wholly."""
    run("systemctl", "set-property", "--runtime", "clipd.service", "IOAccounting=yes")
    run("clipctl", "store", "prune")  # what follows is fetched
    resources = {"memory": {"limit": LIMIT}}
    write_bundle("/root/one", "sleep", "100000", cgroupsPath="/clip-accounting/one",
                 resources=resources)  # fmt: skip
    run(RUNTIME, "run", "--detach", "--bundle", "/root/one", "one")
    assert (OWN / "memory.max").read_text().strip() == str(LIMIT)
    ours = {cgroup(pid) for pid in processes()}
    assert ours == {"/system.slice/clipd.service"}, ours
    return "clipd in /system.slice/clipd.service"


def memory_of_reads() -> str:
    """Pages that a container reads are its own; the store's are clipd's."""
    before, clipd = stat(OWN, "memory.stat", "file"), stat(UNIT, "memory.stat", "file")
    (digest, _) = inside("sha256sum", f"/{BIG}").split()
    assert digest == expected("team/lazy")[BIG]
    mine = stat(OWN, "memory.stat", "file") - before
    clipds = stat(UNIT, "memory.stat", "file") - clipd
    assert mine >= BIG_BYTES * 9 // 10, (mine, clipds)
    return f"{BIG_BYTES >> 20} MiB read: {mine >> 10} KiB the container's, {clipds >> 10} clipd's"


def io_of_fetches() -> str:
    """What was fetched is written by clipd, and charged to it."""
    own = stat(OWN, "io.stat", "wbytes")
    os.sync()
    clipd = stat(UNIT, "io.stat", "wbytes")
    assert clipd >= BIG_BYTES, clipd
    assert stat(OWN, "io.stat", "wbytes") - own < 1 << 20
    return f"{clipd >> 10} KiB clipd's"


def io_of_writes() -> str:
    """What a container writes to its root, and reads from there, is charged to it."""
    clipd = stat(UNIT, "io.stat", "wbytes"), stat(UNIT, "io.stat", "rbytes")
    inside("dd", "if=/dev/zero", "of=/root/out", "bs=65536", f"count={WRITTEN >> 16}")
    inside("sync")
    wrote = stat(OWN, "io.stat", "wbytes")
    assert wrote >= WRITTEN, wrote
    Path("/proc/sys/vm/drop_caches").write_text("3")
    before = stat(OWN, "io.stat", "rbytes")
    inside("sh", "-c", "cat /root/out > /dev/null")
    read = stat(OWN, "io.stat", "rbytes") - before
    assert read >= WRITTEN, read
    after = stat(UNIT, "io.stat", "wbytes"), stat(UNIT, "io.stat", "rbytes")
    assert after[0] - clipd[0] < WRITTEN // 4, (clipd, after)
    return f"{wrote >> 10} KiB written, {read >> 10} KiB read: the container's"


def out_of_memory() -> str:
    """A container that takes too much dies alone."""
    before = status()["server"]["pid"], status()["supervisor"]["pid"]
    inside("sh", "-c", "tail /dev/zero", check=False)
    killed = stat(OWN, "memory.events", "oom_kill")
    assert killed, "nobody was killed"
    assert (status()["server"]["pid"], status()["supervisor"]["pid"]) == before
    assert stat(UNIT, "memory.events", "oom_kill") == 0
    run(RUNTIME, "delete", "--force", "one")
    assert not OWN.exists()
    return f"{killed} killed, clipd serves on"


CHECKS = (
    install, registry, index, units, memory_limit, memory_of_reads, io_of_fetches, io_of_writes,
    out_of_memory,
)  # fmt: skip
