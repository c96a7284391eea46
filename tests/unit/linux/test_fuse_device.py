"""The INIT handshake, byte for byte (include/uapi/linux/fuse.h)."""

from __future__ import annotations

import os
import struct

import pytest

from clip_runc.errors import MountFailed
from clip_runc.linux import fuse_device

EVERYTHING = 0xFFFFFFFF


def request(minor: int = 45, flags: int = EVERYTHING, flags2: int = 0x1FF, major: int = 7) -> bytes:
    body = struct.pack("=IIIII44x", major, minor, 131072, flags, flags2)
    return struct.pack("=IIQQIIIHH", 40 + len(body), 26, 2, 0, 0, 0, 0, 0, 0) + body


def test_the_reply_has_what_we_want_of_what_there_is() -> None:
    reply = fuse_device.init_reply(request())
    assert struct.unpack_from("=IiQ", reply) == (80, 0, 2)
    assert len(reply) == 80
    major, minor, readahead, flags, background, _, max_write, gran, pages = struct.unpack_from(
        "=IIIIHHIIH", reply, 16
    )
    assert (major, minor, readahead, gran) == (7, 31, 131072, 1)
    assert flags & fuse_device.CACHE_SYMLINKS
    assert flags & fuse_device.MAX_PAGES
    assert pages * os.sysconf("SC_PAGESIZE") == fuse_device.MAX_READ
    assert background > 12
    assert max_write == 4096
    high: int = struct.unpack_from("=I", reply, 16 + 32)[0]
    assert high << 32 == fuse_device.ALLOW_IDMAP and flags & 1 << 30
    poor = fuse_device.init_reply(request(minor=27, flags=fuse_device.ASYNC_READ))
    assert struct.unpack_from("=IIII", poor, 16)[1::2] == (27, fuse_device.ASYNC_READ)


@pytest.mark.parametrize(("major", "minor"), [(8, 0), (7, 12)])
def test_other_protocols_are_refused(major: int, minor: int) -> None:
    with pytest.raises(MountFailed, match="speaks FUSE"):
        fuse_device.init_reply(request(major=major, minor=minor))


def test_who_can_resend() -> None:
    assert fuse_device.can_resend(request())
    assert not fuse_device.can_resend(request(flags2=0))
    assert not fuse_device.can_resend(request(flags=1))
