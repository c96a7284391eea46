"""A small image with everything that is awkward about images, made in memory in a moment.

busybox-static gives the programs.  ``EXPECTED`` says what must be seen in the container.
"""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tests.integration.image_maker import Image, cached, write_image, write_layer

BUSYBOX = Path("/bin/busybox")
APPLETS = """
awk cat chmod chown cp cut date dd df echo env expr find grep head hostname id kill ln ls md5sum
mkdir mknod mount mv nslookup od ps pwd readlink rm rmdir sed sh sha256sum sleep sort stat sync
tail tar test top touch tr true umount uname vi wc xargs
"""
MTIME = 1704067200
SETTINGS = {
    "Env": ["PATH=/usr/bin:/bin", "GREETING=hello from the image"],
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": ["echo $GREETING"],
    "WorkingDir": "/srv/work",
    "User": "worker:staff",
    "StopSignal": "SIGINT",
}
CONTENT = {
    "a": b"one\n",
    "big": b"0123456789abcdef" * 65536,  # 1 MiB: chunks enough to be lazy about
}


def tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A PAX archive of the entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def entry(
    name: str,
    data: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    link: str = "",
    owner: tuple[int, int] = (0, 0),
    xattrs: dict[str, str] | None = None,
    device: tuple[int, int] = (0, 0),
) -> tuple[tarfile.TarInfo, bytes]:
    """One member with fixed times."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.linkname = len(data), kind, mode, link
    info.uid, info.gid = owner
    info.mtime = MTIME
    info.devmajor, info.devminor = device
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
    return info, data


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.SYMTYPE, mode=0o777, link=target)


def base_layer(busybox: Path = BUSYBOX) -> bytes:
    """Programs, accounts, and files that the next layers change."""
    programs = [entry("usr/bin/busybox", busybox.read_bytes(), mode=0o755)]
    links = [symlink(f"usr/bin/{name}", "busybox") for name in APPLETS.split()]
    accounts = [
        entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nworker:x:1234:50::/srv:/bin/sh\n"),
        entry("etc/group", b"root:x:0:\nstaff:x:50:worker\n"),
        entry("etc/hostname", b""),
        entry("etc/resolv.conf", b""),
    ]
    return tar(
        [
            *(directory(name) for name in ("usr", "usr/bin", "etc", "srv", "proc", "sys", "dev")),
            directory("tmp", 0o1777),
            directory("root", 0o700),
            symlink("bin", "usr/bin"),
            *programs,
            *links,
            *accounts,
            directory("srv/data"),
            entry("srv/data/a", CONTENT["a"]),
            entry("srv/data/big", CONTENT["big"]),
            entry("srv/data/gone", b"a whiteout hides me\n"),
            directory("srv/opaque"),
            entry("srv/opaque/old", b"hidden by an opaque directory\n"),
            entry("srv/becomes-dir", b"a file\n"),
            directory("srv/becomes-file"),
            entry("srv/becomes-file/inner", b"x"),
        ]
    )


def middle_layer() -> bytes:
    """Whiteouts, an opaque directory, changes of type; prefixed ``./`` as some builders do."""
    return tar(
        [
            directory("./srv/data"),
            entry("./srv/data/.wh.gone"),
            entry("./srv/data/hard", kind=tarfile.LNKTYPE, link="./srv/data/a"),
            directory("./srv/opaque"),
            entry("./srv/opaque/.wh..wh..opq"),
            entry("./srv/opaque/new", b"new\n"),
            directory("./srv/becomes-dir"),
            entry("./srv/becomes-dir/inner", b"inner\n"),
            entry("./srv/becomes-file", b"now a file\n"),
        ]
    )


def top_layer() -> bytes:
    """Modes, owners, xattrs, special files, long names, an implied parent."""
    return tar(
        [
            entry("usr/bin/suid", b"#!/bin/sh\nid -u\n", mode=0o4755),
            entry("srv/owned", b"mine\n", mode=0o640, owner=(123456, 654321)),
            entry("srv/attributed", b"x\n", xattrs={"user.origin": "layer three"}),
            entry("srv/pipe", kind=tarfile.FIFOTYPE, mode=0o600),
            entry("srv/null", kind=tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
            entry("srv/" + "n" * 200, b"long\n"),
            entry("srv/no/parents/here", b"implied\n"),
            directory("srv/work", 0o755),
        ]
    )


EXPECTED = {
    "srv/data/a": (stat.S_IFREG | 0o644, 0, 0),
    "srv/data/hard": (stat.S_IFREG | 0o644, 0, 0),
    "srv/opaque/new": (stat.S_IFREG | 0o644, 0, 0),
    "srv/becomes-dir": (stat.S_IFDIR | 0o755, 0, 0),
    "srv/becomes-file": (stat.S_IFREG | 0o644, 0, 0),
    "usr/bin/suid": (stat.S_IFREG | 0o4755, 0, 0),
    "srv/owned": (stat.S_IFREG | 0o640, 123456, 654321),
    "srv/pipe": (stat.S_IFIFO | 0o600, 0, 0),
    "srv/null": (stat.S_IFCHR | 0o666, 0, 0),
    "srv/no/parents/here": (stat.S_IFREG | 0o644, 0, 0),
    "tmp": (stat.S_IFDIR | 0o1777, 0, 0),
    "bin": (stat.S_IFLNK | 0o777, 0, 0),
}
HIDDEN = ("srv/data/gone", "srv/opaque/old", "srv/becomes-file/inner", "srv/data/.wh.gone")


def busybox(cache: Path, compressions: tuple[str, str, str] = ("gzip", "zstd", "none")) -> Image:
    """The image in three layers, each compressed as named."""

    def make(layout: Path) -> Image:
        streams = (base_layer(), middle_layer(), top_layer())
        layers = [
            write_layer(layout, [stream], compression)
            for stream, compression in zip(streams, compressions, strict=True)
        ]
        return write_image(layout, layers, SETTINGS)

    return cached(cache / ("busybox-" + "-".join(compressions)), make)


def plain(cache: Path) -> Image:
    """One ordinary layer that any runtime unpacks, run as root; it sleeps, as a pod's pause does.

    (containerd cannot unpack ``busybox``: a hard link to a file of a lower layer.)
    """

    def make(layout: Path) -> Image:
        settings = {"Env": SETTINGS["Env"], "Entrypoint": ["/bin/busybox", "sleep", "1000000"]}
        return write_image(layout, [write_layer(layout, [base_layer()])], settings)

    return cached(cache / "plain", make)
