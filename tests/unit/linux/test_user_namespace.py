"""Ids of a user's namespace, and the namespace itself; as an ordinary user where it counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_runc.linux import user_namespace
from clip_runc.linux.privileges import attainable
from tests.integration.prerequisites import native

SHOW = """
import os, sys
from clip_runc.linux import syscalls, user_namespace
from clip_runc.linux.privileges import attainable, drop_privileges
os.setgroups([]); os.setresgid(61779, 61779, 61779); os.setresuid(61779, 61779, 61779)
syscalls.prctl(4, 1)  # dumpable, as after an exec: /proc/self is ours
print(user_namespace.make())
print(os.geteuid(), open("/proc/self/uid_map").read().split())
print(attainable(61217))
sys.stdout.flush()
drop_privileges(61217)
print(os.getresuid(), open("/proc/self/status").read().partition("CapBnd:")[2].split()[0])
"""


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("", []),
        ("ruth:100000:65536\n", [(100000, 65536)]),
        ("other:1:2\n1777:5:6\nruth:7:8\n", [(5, 6), (7, 8)]),
        ("ruth:x:1\nruth:1\n#\n\nruth:3:4:5\n", []),
    ],
)
def test_subordinate_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, ranges: list[tuple[int, int]]
) -> None:
    """By name and by number, as subuid(5) has it; podman's order of ids inside."""
    file = tmp_path / "subuid"
    file.write_text(text)
    monkeypatch.setattr(user_namespace, "_SUBORDINATE", {"uid": str(file)})
    monkeypatch.setattr(os, "geteuid", lambda: 1777)
    account = type("account", (), {"pw_name": "ruth"})
    monkeypatch.setattr("pwd.getpwuid", lambda uid: account)
    assert user_namespace.subordinate("uid") == ranges
    mapped, inside = user_namespace.id_map("uid", 1777), 1
    assert mapped[0] == (0, 1777, 1)
    for (start, count), line in zip(ranges, mapped[1:], strict=True):
        assert line == (inside, start, count)
        inside += count


@native("a user namespace of its own")
def test_one_id_where_there_are_no_more() -> None:
    """Nobody in particular: the reason, root inside, and a process that gave up what it could."""
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "/etc/subuid and /etc/subgid have no ids for this user",
        "0 ['0', '61779', '1']",
        "0",
        "(0, 0, 0) 0000000000000000",
    ]


def test_joining_what_is_not_there_or_our_own() -> None:
    assert not user_namespace.join(os.getpid())
    assert not user_namespace.join(0)


def test_root_of_the_machine_becomes_anybody() -> None:
    assert attainable(61217) == 61217
