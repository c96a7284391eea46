"""Programs of arm64 on another machine: the kernel hands them to qemu-user (binfmt_misc)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QEMU = "qemu-aarch64-static"
_MISC = Path("/proc/sys/fs/binfmt_misc")
_NAME = "clip-arm64"
# an ELF file of 64 bits for machine 183, executable or shared; as in qemu's qemu-binfmt-conf.sh
_MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


@contextmanager
def emulated(qemu: str) -> Iterator[None]:
    """arm64 programs run while this is open.  What was registered before stays as it was."""
    if not (_MISC / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", _MISC], check=True)
    if any((_MISC / name).exists() for name in ("qemu-aarch64", _NAME)):
        yield
        return
    # F: qemu is opened now, and so found in a chroot too
    line = b":%s:M::%s:%s:%s:F" % (_NAME.encode(), _MAGIC, _MASK, qemu.encode())
    (_MISC / "register").write_bytes(line)
    try:
        yield
    finally:
        (_MISC / _NAME).write_text("-1")
