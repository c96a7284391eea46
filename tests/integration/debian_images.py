"""A real Debian image, made by debootstrap from the mirror that this machine itself uses.

One debootstrap, split into layers by package, so that a layer holds what an image builder
would have put there: the base, then the packages on top with their state of dpkg.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.integration.image_maker import (
    Blob,
    Image,
    cached,
    recompress,
    tar_stream,
    write_image,
    write_layer,
)

SUITE = "bookworm"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SETTINGS = {
    "Env": [PATH, "LANG=C.UTF-8"],
    "Cmd": ["/bin/bash"],
    "WorkingDir": "/",
    "Labels": {"org.opencontainers.image.title": "Debian with Python"},
}
# Directories that debootstrap leaves full of what it downloaded and of the machine it ran on.
EMPTIED = ("dev", "proc", "sys", "tmp", "run", "debootstrap", "var/cache/apt", "var/lib/apt/lists")


def mirror(sources: Path = Path("/etc/apt")) -> str:
    """The address of the Debian mirror in this machine's apt sources."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line
    )
    codename = release["VERSION_CODENAME"].strip('"')
    files = [sources / "sources.list", *sorted(sources.glob("sources.list.d/*"))]
    for file in files:
        if file.exists():
            for addresses, suites, components in _sources(file.read_text()):
                if codename in suites and "main" in components:
                    return addresses[0]
    raise RuntimeError(f"no Debian mirror with {codename} main in {sources}")


def _sources(text: str) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """Addresses, suites and components of each source, in either format of sources.list(5)."""
    for line in re.findall(r"^deb\s+(?:\[[^]]*\]\s+)?(.+)$", text, re.MULTILINE):
        address, suite, *components = line.split()
        yield [address], [suite], components
    for stanza in re.split(r"\n\s*\n", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.*(?:\n[ \t]+.*)*)", stanza, re.MULTILINE))
        if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") != "no":
            yield tuple(fields.get(k, "").split() for k in ("URIs", "Suites", "Components"))  # type: ignore[misc]  # three of them


def apt_proxy() -> dict[str, str]:
    """apt's HTTP proxy as an environment for debootstrap, which does not ask apt."""
    out = subprocess.run(
        ["apt-config", "shell", "PROXY", "Acquire::http::Proxy"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = re.search(r"PROXY='(.*)'", out)
    return {"http_proxy": found[1]} if found and found[1] not in ("", "DIRECT") else {}


def debootstrap(tree: Path, packages: Sequence[str], suite: str = SUITE) -> None:
    """Install a minimal Debian with ``packages`` into ``tree``; needs root.

    In a mount namespace of its own: debootstrap mounts /proc and /sys below the tree, and one
    that is killed must not leave them there for whoever removes the tree.
    """
    command = [
        "unshare", "--mount", "--propagation=private",
        "debootstrap", "--variant=minbase", f"--include={','.join(packages)}",
    ]  # fmt: skip
    log = tree.with_suffix(".log")
    with log.open("wb") as out:
        status = subprocess.run(
            [*command, suite, str(tree), mirror()],
            check=False,
            env=os.environ | apt_proxy(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        ).returncode
    if status:
        tail = log.read_text(errors="replace").splitlines()[-15:]
        raise RuntimeError("debootstrap failed:\n" + "\n".join(tail))
    for name in ("etc/resolv.conf", "etc/hostname", "etc/machine-id"):
        (tree / name).write_bytes(b"")
    for name in EMPTIED:
        for path in (tree / name).glob("*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def paths_below(tree: Path) -> Iterator[bytes]:
    """Every path of the tree relative to it, a directory before what is in it."""
    top = os.fsencode(tree)
    for directory, names, files in os.walk(top):
        inside = os.path.relpath(directory, top)
        here = b"" if inside == b"." else inside + b"/"
        for name in (*names, *files):
            yield here + name


def of_packages(tree: Path, names: Iterable[str]) -> set[bytes]:
    """The files that belong to the packages, by dpkg's lists, and dpkg's records of them."""
    info = tree / "var/lib/dpkg/info"
    found: set[bytes] = set()
    for name in names:
        for record in [*info.glob(f"{name}.*"), *info.glob(f"{name}:*")]:
            found.add(os.fsencode(record.relative_to(tree)))
            if record.suffix == ".list":
                for line in record.read_bytes().splitlines():
                    found.add(_real(tree, line.strip(b"/")))
    return {path for path in found if not (tree / os.fsdecode(path)).is_dir()}


def _real(tree: Path, path: bytes) -> bytes:
    """``path`` where it really lies: packages say ``lib/…`` for what is in ``usr/lib/…``."""
    head, _, rest = path.partition(b"/")
    top = tree / os.fsdecode(head)
    if rest and top.is_symlink():
        return os.fsencode(top.readlink()) + b"/" + rest
    return path


def base_packages(tree: Path) -> set[str]:
    """The packages that are essential or that dpkg marks as required, with what they need."""
    status = (tree / "var/lib/dpkg/status").read_text()
    required = r"^Package: (\S+)(?=(?:\n[^\n]+)*\n(?:Essential: yes|Priority: required))"
    return set(re.findall(required, status, re.MULTILINE))


def layers_of(tree: Path, layout: Path, compression: str = "gzip") -> list[Blob]:
    """Two layers: what a bare minbase has, and all that the other packages brought."""
    everything = set(paths_below(tree))
    status = (tree / "var/lib/dpkg/status").read_text()
    packages = set(re.findall(r"^Package: (\S+)", status, re.MULTILINE))
    libraries = {name for name in packages if re.match(r"lib(?!py)|gcc-1.-base|apt|debian", name)}
    upper = of_packages(tree, packages - base_packages(tree) - libraries) & everything
    parents = {path[:at] for path in upper for at in _slashes(path)}
    base = everything - upper
    return [
        write_layer(layout, tar_stream(tree, base), compression),
        write_layer(layout, tar_stream(tree, upper | (parents & everything)), compression),
    ]


def _slashes(path: bytes) -> Iterator[int]:
    return (at for at, byte in enumerate(path) if byte == 0x2F)


def demo_layer(layout: Path, scratch: Path) -> Blob:
    """A small third layer: a program, and whiteouts of the documentation below it."""
    tree = scratch / "top"
    shutil.rmtree(tree, ignore_errors=True)
    for directory in ("usr/local/bin", "usr/share/doc", "usr/share/man"):
        (tree / directory).mkdir(parents=True)
    program = tree / "usr/local/bin/hello"
    program.write_text(
        '#!/usr/bin/python3\nimport json\nprint(json.dumps({"hello": "clip-runc"}))\n'
    )
    program.chmod(0o755)
    (tree / "usr/share/doc/.wh..wh..opq").touch()
    (tree / "usr/share/man/.wh.man1").touch()
    for path in tree.rglob("*"):
        os.utime(path, (1704067200, 1704067200))
    names = [os.fsencode(path.relative_to(tree)) for path in tree.rglob("*")]
    layer = write_layer(layout, tar_stream(tree, names))
    shutil.rmtree(tree)
    return layer


def debian(cache: Path, packages: Sequence[str] = ("python3",)) -> Image:
    """Debian with ``packages`` in three gzip layers, made once and kept in ``cache``."""

    def make(layout: Path) -> Image:
        tree = cache / "debian.tree"
        shutil.rmtree(tree, ignore_errors=True)
        debootstrap(tree, packages)
        layers = [*layers_of(tree, layout), demo_layer(layout, cache)]
        shutil.rmtree(tree)
        return write_image(layout, layers, SETTINGS)

    cache.mkdir(parents=True, exist_ok=True)
    return cached(cache / "debian", make)


def debian_variant(cache: Path, compressions: Sequence[str]) -> Image:
    """``debian`` with its three layers compressed as named, e.g. ``("zstd", "none", "gzip")``."""
    original = debian(cache)
    layout = cache / ("debian-" + "-".join(compressions))
    return cached(layout, lambda part: recompress(original, part, compressions))
