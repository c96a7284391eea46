"""An initrd of a few hundred kilobytes: busybox, the disk's driver, and ``init``.

With ``clip.probe`` on the kernel's command line it says so and switches the machine off: that is
how an accelerator is tried.
"""

from __future__ import annotations

import gzip
import lzma
import stat
import subprocess
from pathlib import Path

import zstandard

PROBED = "clip-probe-ok"
_BUSYBOX = Path("/bin/busybox")
_MODULES = ("virtio_pci", "virtio_blk", "ext4")
_INIT = f"""\
#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
if busybox grep -q clip.probe /proc/cmdline; then
    echo {PROBED}
    busybox poweroff -f
fi
for module in $(busybox cat /modules); do busybox insmod /$module; done
tries=0
until [ -b /dev/vda ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || break
    busybox usleep 100000
done
busybox mount -t ext4 /dev/vda /root || busybox poweroff -f
busybox mount --move /dev /root/dev
busybox umount /proc
exec busybox switch_root /root /sbin/init
"""


def write_initrd(path: Path, tree: Path, version: str, busybox: Path = _BUSYBOX) -> None:
    """For the kernel ``version`` whose modules are in ``tree``; ``busybox`` is static."""
    entries: list[tuple[str, int, bytes]] = [
        (name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "proc", "root")
    ]
    entries.append(("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()))
    entries.append(("init", stat.S_IFREG | 0o755, _INIT.encode()))
    modules = _needed(tree, version)
    for number, module in enumerate(modules):
        entries.append((f"{number}.ko", stat.S_IFREG | 0o644, _plain(module)))
    names = "\n".join(f"{number}.ko" for number in range(len(modules)))
    entries.append(("modules", stat.S_IFREG | 0o644, names.encode()))
    path.write_bytes(gzip.compress(b"".join(_members(entries)), 1))


def _needed(tree: Path, version: str) -> list[Path]:
    """The modules' files in the order in which they have to be loaded."""
    found: list[Path] = []
    for name in _MODULES:
        done = subprocess.run(
            ["modprobe", "--dirname", tree, "--set-version", version, "--show-depends", name],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        for line in done.stdout.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "insmod" and (path := Path(rest.split()[0])) not in found:
                found.append(path)
    return found


def _plain(module: Path) -> bytes:
    """busybox loads no compressed modules."""
    data = module.read_bytes()
    if module.suffix == ".xz":
        return lzma.decompress(data)
    if module.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def _members(entries: list[tuple[str, int, bytes]]) -> list[bytes]:
    """The format newc of cpio(5)."""
    members = []
    for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers)
        member = head + name.encode() + b"\0"
        member += bytes(-len(member) % 4) + data
        members.append(member + bytes(-len(member) % 4))
    return members
