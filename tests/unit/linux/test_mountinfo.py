"""mountinfo lines, escapes included."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from clip_runc.linux.mountinfo import Mount, is_mountpoint, mounts

LINE = (
    "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue"
)


def test_a_line_of_the_manual_page() -> None:
    mount = Mount(LINE)
    assert (mount.id, mount.parent, mount.dev) == (36, 35, (98, 0))
    assert (mount.root, mount.target) == ("/mnt1", "/mnt 2")
    assert (mount.options, mount.fstype, mount.source) == ("rw,noatime", "ext3", "/dev/root")
    assert mount.super_options == "rw,errors=continue"


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_any_name_survives_the_kernels_escaping(name: bytes) -> None:
    special = b" \t\n\\#"
    escaped = b"".join(b"\\%03o" % c if c in special else bytes([c]) for c in name)
    line = os.fsdecode(b"1 0 0:1 / /" + escaped + b" rw - tmpfs none rw")
    assert os.fsencode(Mount(line).target) == b"/" + name


def test_proc_is_mounted() -> None:
    assert "/proc" in [mount.target for mount in mounts()]
    assert is_mountpoint("/proc")
    assert not is_mountpoint("/proc/self")
    assert not is_mountpoint("/does/not/exist")
