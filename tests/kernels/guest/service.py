"""clipd as a service of systemd: its socket starts it, and its mount outlives it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import time
from pathlib import Path

from tests.kernels.guest.commands import run, wait_for
from tests.kernels.guest.installed import (
    COMMAND,
    RUNTIME,
    WANTED,
    cgroup,
    index,
    install,
    registry,
    status,
    units,
    write_bundle,
)
from tests.kernels.guest.reading import Reader, reader

RESTARTS = 5
CRASHES = 5
GROUP = "/system.slice/clipd.service"
# the hard limit of the tests of this kernel: readers of one without FUSE_NOTIFY_RESEND may fail
RESENDS = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 9)
MOST_EXPOSED = 6.2


def show(name: str, unit: str = "clipd.service") -> str:
    """A property of a unit."""
    return run("systemctl", "show", "--value", f"--property={name}", unit).strip()


def is_active(unit: str) -> bool:
    return run("systemctl", "is-active", unit, check=False).strip() == "active"


def serves() -> None:
    """A server serves, in the unit's cgroup and without a keeper; systemd has the device."""
    wait_for(lambda: status()["server"]["state"] == "serving", "a server serves")
    found = status()
    assert str(found["supervisor"]["pid"]) == show("MainPID")
    assert (found["holder"], found["keeper"]["pid"]) == ("service manager", 0), found
    assert show("NFileDescriptorStore") == "1"
    groups = {cgroup(found[part]["pid"]) for part in ("supervisor", "server")}
    assert groups == {GROUP}, groups


def mount_id() -> str:
    """The number of the FUSE mount: another one has another."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    (found,) = [line[0] for line in lines if line[4] == "/run/clip/fs"]
    return found


def went_well(reading: Reader, what: str) -> str:
    """A few reads more; none may have failed where the kernel asks again."""
    before = reading.rounds
    wait_for(lambda: reading.rounds >= before + 2, "reads go on")
    assert not (RESENDS and reading.errors), f"{reading.errors} reads failed"
    return f"{what}, {reading.rounds} reads, {reading.errors} failed, " + (
        f"longest {reading.longest:.1f} s"
    )


def asleep() -> str:
    """systemd listens, for root alone; who only looks starts nothing."""
    assert is_active("clipd.socket")
    assert is_active("clip-runc-gc.timer")
    control = os.stat("/run/clip/control")
    assert (stat.S_IMODE(control.st_mode), control.st_uid) == (0o700, 0)
    assert stat.S_IMODE(os.stat("/run/clip/control/clipd.sock").st_mode) == 0o600
    assert json.loads(run("clipctl", "status", "--json", check=False)) == {"running": False}
    run("clipctl", "gc")
    findings = json.loads(run("clipctl", "doctor", "--json", check=False))
    (said,) = [one["text"] for one in findings if one["subject"] == "clipd"]
    assert show("ActiveState") == "inactive", "somebody woke it"
    return str(said)


def first_container() -> str:
    """It wakes clipd; it stays, for what follows."""
    if not Path("/root/served").exists():
        write_bundle("/root/served", "sleep", "100000")
    run(RUNTIME, "run", "--detach", "--bundle", "/root/served", "served")
    assert run(RUNTIME, "exec", "served", *COMMAND.split()) == WANTED
    serves()
    assert stat.S_IMODE(os.stat("/run/clip").st_mode) == 0o711
    text = show("StatusText")
    assert "server serving" in text, text
    return text


def restarted() -> str:
    """``systemctl restart`` under a reader."""
    before = mount_id()
    with reader() as reading:
        wait_for(lambda: reading.rounds or reading.errors, "a read ends")
        for _ in range(RESTARTS):
            main = show("MainPID")
            run("systemctl", "restart", "clipd.service")
            assert show("MainPID") != main
            serves()
        text = went_well(reading, f"{RESTARTS} restarts")
    assert mount_id() == before
    return text


def crashed() -> str:
    """Every process in the cgroup killed at once, under a reader."""
    before = mount_id()
    with reader() as reading:
        wait_for(lambda: reading.rounds or reading.errors, "a read ends")
        for _ in range(CRASHES):
            main = show("MainPID")
            run("systemctl", "kill", "--signal=KILL", "--kill-whom=all", "clipd.service")
            wait_for(lambda main=main: show("MainPID") not in (main, "0"), "a restart")
            serves()
        text = went_well(reading, f"{CRASHES} times all killed")
    assert mount_id() == before
    restarts = int(show("NRestarts"))
    assert restarts >= CRASHES, restarts
    return text


def reloaded() -> str:
    """``systemctl reload``: other processes, the same service."""
    restarts, since = show("NRestarts"), show("ActiveEnterTimestampMonotonic")
    with reader() as reading:
        wait_for(lambda: reading.rounds or reading.errors, "a read ends")
        for _ in range(2):
            main = show("MainPID")
            run("systemctl", "reload", "clipd.service")
            wait_for(lambda main=main: show("MainPID") != main, "another main process")
            wait_for(lambda: is_active("clipd.service"), "the end of reloading")
            serves()
        run("systemctl", "kill", "--signal=KILL", "--kill-whom=all", "clipd.service")
        wait_for(lambda: show("NRestarts") != restarts, "a restart")
        serves()
        assert since != show("ActiveEnterTimestampMonotonic")
        return went_well(reading, "2 reloads, then all killed")


def watched() -> str:
    """A supervisor that is stopped is replaced when its time is up."""
    main, begun = show("MainPID"), time.monotonic()
    with reader() as reading:
        os.kill(int(main), signal.SIGSTOP)
        wait_for(lambda: show("MainPID") not in (main, "0"), "the watchdog", seconds=90)
        seconds = time.monotonic() - begun
        serves()
        text = went_well(reading, f"replaced after {seconds:.0f} s")
    said = run("journalctl", "--unit=clipd.service", "--output=cat")
    assert "atchdog timeout" in said, said[-1000:]
    return text


def journal() -> str:
    """What both processes log are fields; ``clipctl logs`` finds it."""
    lines = run("journalctl", "--unit=clipd.service", "--output=json").splitlines()
    found = [one for one in map(json.loads, lines) if one.get("SYSLOG_IDENTIFIER") == "clipd"]
    events = {str(one["CLIP_RUNC_EVENT"]) for one in found if "CLIP_RUNC_EVENT" in one}
    wanted = {"clipd-started", "clipd-took-over", "clipd-leaving", "server-serves"}
    assert events >= wanted, events
    assert all(one["_SYSTEMD_UNIT"] == "clipd.service" for one in found)
    assert "CLIP_RUNC_SECONDS" in {name for one in found for name in one}
    assert "took over" in run("clipctl", "logs", "--lines=1000")
    return ", ".join(sorted(events))


def collected() -> str:
    """What the timer starts removes a container that runc knows no longer."""
    write_bundle("/root/lost", "sleep", "100000")
    run(RUNTIME, "run", "--detach", "--bundle", "/root/lost", "lost")
    pid = int(json.loads(run("runc", "state", "lost"))["pid"])
    os.kill(pid, signal.SIGKILL)
    shutil.rmtree("/run/runc/lost")
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "its end")
    before = len(list(Path("/run/clip/containers").iterdir()))
    run("systemctl", "start", "clip-runc-gc.service")
    after = len(list(Path("/run/clip/containers").iterdir()))
    assert (before, after) == (2, 1), (before, after)
    assert show("Result", "clip-runc-gc.service") == "success"
    assert show("NextElapseUSecMonotonic", "clip-runc-gc.timer")
    return "removed by clip-runc-gc.service"


def hardened() -> str:
    """What the unit allows is in force; the server has given up even that."""
    found = status()
    fields = {part: proc_status(found[part]["pid"]) for part in ("supervisor", "server")}
    for one in fields.values():
        assert (one["NoNewPrivs"], one["Seccomp"]) == ("1", "2"), one
    assert int(fields["supervisor"]["CapBnd"], 16) == int(fields["supervisor"]["CapEff"], 16)
    assert bounding_set() == int(fields["supervisor"]["CapBnd"], 16)
    assert int(fields["server"]["CapBnd"], 16) == 0
    said = run("systemd-analyze", "security", "--no-pager", "clipd.service")
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert score is not None, said
    assert float(score[1]) <= MOST_EXPOSED, score[0]
    return score[0]


def bounding_set() -> int:
    """The capabilities that the unit names, as bits."""
    names = {"chown": 0, "dac_override": 1, "fowner": 3, "kill": 5, "setgid": 6, "setuid": 7,
             "setpcap": 8, "sys_ptrace": 19, "sys_admin": 21, "sys_resource": 24}  # fmt: skip
    unit = Path("/etc/systemd/system/clipd.service").read_text()
    (line,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    return sum(1 << names[word.removeprefix("CAP_").lower()] for word in line.split())


def proc_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def security() -> str:
    """``clipctl doctor --security`` of the running unit."""
    findings = json.loads(run("clipctl", "doctor", "--security", "--json", check=False))
    bad = [one for one in findings if one["level"] == "failure"]
    assert not bad, bad
    (line,) = [one["text"] for one in findings if one["subject"].startswith("server ")]
    return str(line)


CHECKS = (
    install, registry, index, units, asleep, first_container, restarted, crashed, reloaded,
    watched, journal, collected, hardened, security,
)  # fmt: skip
