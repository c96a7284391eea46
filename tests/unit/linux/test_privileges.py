"""What is left of root after giving it up."""

from __future__ import annotations

import os

from clip_runc.linux.unprivileged import run_unprivileged

UID = 61217


def _self() -> dict[str, object]:
    with open("/proc/self/status", encoding="ascii") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {"uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), **lines}


def test_nothing_of_root_is_left() -> None:
    found = run_unprivileged(UID, _self)
    assert isinstance(found, dict)
    if os.geteuid() == 0:
        assert found["uids"] == found["gids"] == [UID] * 3
        assert found["groups"] == []
        assert int(found["CapBnd"], 16) == 0
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(found[name], 16) == 0
    assert found["NoNewPrivs"] == "1"


def _open_fds() -> list[int]:
    return [fd for fd in range(3, 64) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_descriptors_are_closed_but_those_to_keep() -> None:
    kept, other = os.pipe()
    try:
        found = run_unprivileged(UID, _open_fds, keep_fds=[kept])
    finally:
        os.close(kept)
        os.close(other)
    assert isinstance(found, list)
    assert kept in found
    assert other not in found
    assert len(found) == 2  # the pipe of the result is the other one
