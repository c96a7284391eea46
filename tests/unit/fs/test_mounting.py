"""What clipd makes of the kernel's INIT request."""

from __future__ import annotations

import struct

from clip_runc.config import Settings
from clip_runc.fs import mounting


def request(flags2: int) -> bytes:
    body = struct.pack("=IIIII44x", 7, 45, 131072, 0xFFFFFFFF, flags2)
    return struct.pack("=IIQQIIIHH", 40 + len(body), 26, 2, 0, 0, 0, 0, 0, 0) + body


def test_requests_are_repeated_where_the_kernel_can_and_nobody_forbids() -> None:
    new, old = request(0xFF), request(0)
    assert mounting.resends(Settings(), new)
    assert not mounting.resends(Settings(), old)
    assert not mounting.resends(Settings(resend=False), new)
    assert not mounting.resends(Settings(), b"")
