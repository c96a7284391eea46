"""Processes as /proc shows them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from clip_runc.linux.observed import (
    CAPABILITIES,
    Observed,
    capability_names,
    command_line,
    core_limit,
    parse_status,
    pids,
)

STATUS = """\
Name:\tclipd: a b
Uid:\t0\t65533\t65533\t65533
Gid:\t1\t2\t3\t4
Groups:\t20 27
CapInh:\t0000000000000000
CapPrm:\t0000000000200000
CapEff:\t0000000000200001
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
"""


def test_fields() -> None:
    seen = Observed(7, parse_status(STATUS))
    assert (seen.name, seen.uids, seen.gids) == (
        "clipd: a b",
        [0, 65533, 65533, 65533],
        [1, 2, 3, 4],
    )
    assert seen.groups == [20, 27]
    assert seen.no_new_privs and seen.seccomp == "filter"
    assert seen.effective() == "capabilities chown, sys_admin"
    assert seen.capabilities["CapBnd"] == (1 << 41) - 1
    assert seen.as_dict()["pid"] == 7


def test_fields_that_a_kernel_has_not() -> None:
    seen = Observed(7, {"Uid": "0 0 0 0"})
    assert not seen.no_new_privs and seen.seccomp == "none"
    assert seen.effective() == "no capability"


def test_capabilities() -> None:
    assert capability_names(0) == []
    assert capability_names(1 << 21 | 1 << 40) == ["sys_admin", "checkpoint_restore"]
    assert capability_names(1 << 50) == ["50"]
    assert capability_names((1 << len(CAPABILITIES)) - 1) == list(CAPABILITIES)
    everything = {"CapEff": f"{(1 << 41) - 1:x}", "Uid": "0"}
    assert Observed(1, everything).effective() == "every capability"


def test_core_limit() -> None:
    head = "Limit                     Soft Limit           Hard Limit           Units     \n"
    assert (
        core_limit(f"{head}Max core file size        0                    0          bytes\n")
        == "0"
    )
    line = "Max core file size        0                    unlimited            bytes     \n"
    assert core_limit(head + line) == "unlimited"


def test_a_living_one() -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    script = f"{limit}; import sys; print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", script, "word"],
        env={"CLIP_TEST": "a=b"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin and child.stdout
    child.stdout.readline()
    try:
        seen = Observed.look(child.pid)
        assert seen.argv[-1] == "word" == command_line(child.pid)[-1]
        assert seen.environment["CLIP_TEST"] == "a=b"
        assert not seen.dumps_core
        assert seen.dumpable
        assert seen.uids[0] == os.getuid()
        assert {child.pid, os.getpid()} <= set(pids())
    finally:
        child.stdin.close()
        child.stdout.close()
        child.wait()
    assert command_line(child.pid) == []
    with pytest.raises(OSError):
        Observed.look(child.pid)
