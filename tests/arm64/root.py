"""Debian 13 for arm64 as a disk image, with what the wheel and its unit tests need by pip.

Packages are unpacked and not configured: emulated, that would take longer than all tests do.  What
pip has as a wheel for arm64 is installed by this machine's pip, which fails where there is none; of
what has none for any machine, pyfuse3 and python-prctl, Debian's builds are taken (``builds`` in
unit.py has pip build them).  Made once, kept in a cache outside of the repository, made again when
what goes in changes.  One disk for both: the unit tests see it through a loop device, the machine
of qemu as its disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

from tests.integration.clip_machine import REPOSITORY
from tests.integration.debian_images import mirror
from tests.kernels.initrd import write_initrd
from tests.kernels.roots import DATA, VENV, run

CACHE = Path("/var/cache/clip-runc-tests/arm64")
SUITE, PYTHON = "trixie", "3.13"
BUILT = ("pyfuse3", "python-prctl")
# of this machine's, where pip builds: its way to the index
BORROWED = ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
_SIZE = "2G"
_PACKAGES = (
    "base-files", "base-passwd", "bash", "coreutils", "dash", "util-linux", "mount", "sed", "grep",
    "findutils", "kmod", "iproute2", "procps", "attr", "libc-bin", "e2fsprogs", "tar", "gzip",
    "python3", "python3-venv", "python3-dev", "gcc", "libc6-dev", "pkg-config", "libfuse3-dev",
    "libcap-dev", "fuse3", "runc", "busybox-static", "docker-registry", "linux-image-cloud-arm64",
    "python3-pyfuse3", "python3-prctl",
)  # fmt: skip
_FOR_TESTS = ("pip", "pytest>=8", "hypothesis>=6.100")
_WHEELS = ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "manylinux_2_28_aarch64")
_PIP = f"""\
#!{VENV}/bin/python
import sys
from pip._internal.cli.main import main
sys.exit(main())
"""
_INIT = f"""\
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
ln -s /proc/self/fd /dev/fd
for module in virtio_console fuse overlay erofs loop; do modprobe $module; done
ip link set lo up
mount -o ro /dev/vdb {DATA}
results=/dev/$(ls /sys/class/virtio-ports)
PYTHONPATH={DATA} PYTHONDONTWRITEBYTECODE=1 python3 -m tests.kernels.guest.start $results
busybox poweroff -f
"""


class Root(NamedTuple):
    """Files that boot, and the busybox of the architecture."""

    kernel: Path
    initrd: Path
    disk: Path
    busybox: Path


def root() -> Root:
    """From the cache or made; raises ``RuntimeError`` with the end of a log."""
    CACHE.mkdir(parents=True, exist_ok=True)
    place = CACHE / _key()
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            for old in CACHE.glob("*/vmlinuz"):
                shutil.rmtree(old.parent)
            part = CACHE / "part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _make(part)
            part.rename(place)
    return Root(place / "vmlinuz", place / "initrd", place / "root.ext4", place / "busybox")


def needs() -> list[str]:
    """What the project depends on, and its unit tests."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *_FOR_TESTS]


def _key() -> str:
    parts = [SUITE, *_PACKAGES, *needs(), *_WHEELS, _INIT, _SIZE]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _make(part: Path) -> None:
    log = CACHE / "log"
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="clip-root-", dir=CACHE) as name:
        tree = Path(name, "tree")
        _unpack(tree, "arm64", _PACKAGES, log)
        _set_up(tree)
        _install_wheels(tree, log)
        _unpack(Path(name, "native"), "amd64", ("base-files", "python3"), log)
        compile_all(tree, Path(name, "native"), log)
        shutil.copyfile(tree / "usr/bin/busybox", part / "busybox")
        _take_kernel(tree, part, log)
        run(["mkfs.ext4", "-q", "-F", "-d", tree, part / "root.ext4", _SIZE], log)


def _unpack(tree: Path, architecture: str, packages: tuple[str, ...], log: Path) -> None:
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
    command: list[str | Path] = [
        "mmdebstrap", "--mode=root", "--variant=extract", "--format=directory",
        f"--architectures={architecture}", "--aptopt=Acquire::Languages none",
        "--aptopt=Acquire::Check-Valid-Until false", *excluded,
        f"--include={','.join(packages)}", SUITE, tree, mirror(),
    ]  # fmt: skip
    run(["unshare", "--mount", "--propagation=private", *command], log)


def _set_up(tree: Path) -> None:
    """What the packages' scripts would have made, and the program that a guest starts with."""
    for name in ("passwd", "group"):
        shutil.copyfile(tree / f"usr/share/base-passwd/{name}.master", tree / "etc" / name)
    (tree / "etc/hosts").write_text("127.0.0.1 localhost guest\n")
    for name in BORROWED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (tree / DATA[1:]).mkdir()
    init = tree / "usr/sbin/init"
    init.unlink(missing_ok=True)
    init.write_text(_INIT)
    init.chmod(0o755)


def _install_wheels(tree: Path, log: Path) -> None:
    """A virtual environment, filled by this machine's pip; it fails where there is no wheel."""
    venv = tree / VENV[1:]
    site = venv / f"lib/python{PYTHON}/site-packages"
    site.mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "bin/python").symlink_to(f"/usr/bin/python{PYTHON}")
    (venv / "bin/pip").write_text(_PIP)
    (venv / "bin/pip").chmod(0o755)
    (venv / "pyvenv.cfg").write_text(
        f"home = /usr/bin\nversion = {PYTHON}\ninclude-system-site-packages = true\n"
    )
    wheels = [one for one in needs() if not one.startswith(BUILT)]
    command: list[str | Path] = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:",
        "--implementation=cp", f"--python-version={PYTHON}", *(f"--platform={x}" for x in _WHEELS),
        "--target", site, *wheels,
    ]  # fmt: skip
    run(command, log)


def compile_all(tree: Path, native: Path, log: Path) -> None:
    """Bytecode, which is every machine's, by the same Python of this machine's kind in ``native``.

    An emulated one takes a second for a module.
    """
    script = (
        'mkdir -p "$2/mnt"; mount --bind "$1" "$2/mnt"; '
        f"exec chroot $2 python{PYTHON} -m compileall -q -s /mnt /mnt/usr/lib/python{PYTHON} "
        f"/mnt/usr/lib/python3 /mnt{VENV}/lib >/dev/null || true"  # files of tests that are wrong
    )
    unshared: list[str | Path] = ["unshare", "--mount", "--propagation=private", "sh", "-ec"]
    run([*unshared, script, "sh", tree, native], log)


def _take_kernel(tree: Path, part: Path, log: Path) -> None:
    (kernel,) = tree.glob("boot/vmlinuz-*")
    shutil.move(kernel, part / "vmlinuz")
    (modules,) = (tree / "usr/lib/modules").iterdir()
    run(["depmod", "--basedir", tree, modules.name], log)
    write_initrd(part / "initrd", tree, modules.name, part / "busybox")
