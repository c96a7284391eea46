"""Roots of Debian releases as disk images: packages by mmdebstrap, what the wheel needs by pip.

Made once and kept in a cache outside of the repository; made again when what goes in changes.
The wheel itself is not in them: it is installed in the running machine, as its user would.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

from tests.integration.clip_machine import REPOSITORY
from tests.integration.debian_images import apt_proxy, mirror
from tests.kernels.initrd import write_initrd

VENV = "/opt/clip-runc/venv"
RESULTS = "/dev/ttyS1"
DATA = "/clip-test"
_SIZE = "6G"  # what is not used takes no place
_UNUSED_SECONDS = 24 * 3600
_SYSTEM = ("systemd-sysv", "dbus", "kmod", "udev", "iproute2", "procps", "ca-certificates")
_PACKAGES = (
    *_SYSTEM, "python3-venv", "python3-dev", "gcc", "libc6-dev", "pkg-config", "libfuse3-dev",
    "libcap-dev", "fuse3", "apparmor", "runc", "crun", "containerd", "podman", "docker-registry",
)  # fmt: skip
# Nothing of the kernel's packages is run: no initramfs of the distribution is made.  From 7.x on
# an image is only a name for a binary, its modules, and a base.
_KERNEL = """
cd "$1"
mkdir linux
chroot . sh -ec 'cd /linux
of() {
    apt-cache depends "$1" |
        sed -nE "s/.*Depends: (linux-(image|binary|modules|base)-[0-9].*)/\\1/p"
}
image=$(of linux-image-cloud-amd64 | head -n 1)
apt-get -qq download $image $(of $image)
for package in *.deb; do dpkg-deb --extract $package .; done'
"""
_UNIT = f"""\
[Unit]
Description=clip-runc's tests of this machine
RequiresMountsFor={DATA}
After=multi-user.target

[Service]
Type=exec
Environment=PYTHONPATH={DATA} PYTHONDONTWRITEBYTECODE=1
ExecStart=/usr/bin/python3 -m tests.kernels.guest.start {RESULTS}
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=default.target
"""


class Release(NamedTuple):
    """A release to be tested, what apt calls it, and packages that only some have.

    ``fresh``: it has what ``scripts/setup --dev`` takes from Debian, and nothing from PyPI.
    """

    name: str
    suite: str
    title: str
    packages: tuple[str, ...] = ()
    fresh: bool = False

    def all_packages(self) -> list[str]:
        """What is installed."""
        if not self.fresh:
            return [*_PACKAGES, *self.packages]
        setup = [REPOSITORY / "scripts/setup", "--dev", "--packages"]
        said = subprocess.run(setup, check=True, capture_output=True, text=True).stdout
        return [*_SYSTEM, *said.split()]


RELEASES = {
    "debian12": Release("debian12", "bookworm", "Debian 12"),
    "debian13": Release("debian13", "trixie", "Debian 13", ("criu",)),
    "testing": Release("testing", "forky", "Debian testing", ("criu",)),
}
FRESH = Release("fresh", "trixie", "Debian 13", fresh=True)


class Root(NamedTuple):
    """Files that boot: a kernel, an initrd, a disk."""

    kernel: Path
    initrd: Path
    disk: Path


def root(cache: Path, release: Release) -> Root:
    """The root of a release, from the cache or made; raises ``RuntimeError`` with the end of a log.

    ``cache`` must not be on a file system that small machines keep in memory: a root is 1 GB.
    """
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / f"{release.name}-{_key(release)}"
    with (cache / f"{release.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _remove_old(cache, release)
            part = cache / f"{release.name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _make(part, release)
            part.rename(place)
    os.utime(place)
    return Root(place / "vmlinuz", place / "initrd", place / "root.ext4")


def _remove_old(cache: Path, release: Release) -> None:
    """Roots of it that nobody has used for a while; another tree may use another one."""
    for old in cache.glob(f"{release.name}-*"):
        if old.stat().st_mtime < time.time() - _UNUSED_SECONDS:
            shutil.rmtree(old)


def _needs() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found: list[str] = project["dependencies"]
    return found


def _key(release: Release) -> str:
    parts = [release.suite, *release.all_packages(), *_needs()]
    for name in ("roots.py", "initrd.py"):
        parts.append((Path(__file__).parent / name).read_text())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _make(part: Path, release: Release) -> None:
    tree = Path(tempfile.mkdtemp(prefix="clip-root-", dir=part))
    try:
        _bootstrap(tree, release, part / "log")
        _take_way_out(tree)
        if not release.fresh:
            _install_needs(tree, part / "log")
        _set_up(tree)
        _take_kernel(tree, part)
        run(
            ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", tree, part / "root.ext4", _SIZE],
            part / "log",
        )
        run(["tune2fs", "-O", "has_journal", part / "root.ext4"], part / "log")
    finally:
        shutil.rmtree(tree)


def run(command: list[str | Path], log: Path, environ: dict[str, str] | None = None) -> None:
    """Run a command with its output in ``log``; raises ``RuntimeError`` with the end of that."""
    with log.open("ab") as out:
        status = subprocess.run(
            command, check=False, env=os.environ | apt_proxy() | (environ or {}),
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        ).returncode  # fmt: skip
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{command[0]} exited with {status}:\n{tail}")


def _bootstrap(tree: Path, release: Release, log: Path) -> None:
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as hook:
        hook.write(_KERNEL)
        hook.flush()
        command: list[str | Path] = [
            "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
            "--aptopt=Acquire::Languages none", "--aptopt=Acquire::Check-Valid-Until false",
            "--aptopt=Acquire::Retries 2", "--dpkgopt=force-unsafe-io", *excluded,
            f"--include={','.join(release.all_packages())}",
            f'--customize-hook=sh -e {hook.name} "$1"',
            release.suite, tree, mirror(),
        ]  # fmt: skip
        run(["unshare", "--mount", "--propagation=private", *command], log)


def _take_way_out(tree: Path) -> None:
    """This machine's way to PyPI and Debian: settings, names, certificates."""
    bundle = "etc/ssl/certs/ca-certificates.crt"
    for name in ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", bundle):
        if Path("/", name).exists():
            shutil.copyfile(Path("/", name), tree / name)


def _install_needs(tree: Path, log: Path) -> None:
    """What the wheel needs, by pip in the root."""
    script = (
        'cd "$1"; for name in dev proc; do mount --rbind /$name $name; done; shift; '
        'exec chroot . sh -ec "$@"'
    )
    inside = (
        f'python3 -m venv {VENV}; {VENV}/bin/pip install --quiet --no-cache-dir "$@"; '
        f"{VENV}/bin/python -m compileall -q {VENV} || true"
    )
    command: list[str | Path] = ["unshare", "--mount", "--propagation=private", "sh", "-ec", script]
    run([*command, "sh", tree, inside, "sh", *_needs()], log, {"TMPDIR": "/tmp"})


def _set_up(tree: Path) -> None:
    """What an installer would have asked for, and the unit that runs the tests."""
    (tree / "etc/hostname").write_text("guest\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost guest\n")
    (tree / "etc/fstab").write_text(
        "/dev/vda / ext4 defaults 0 1\n"
        f"/dev/vdb {DATA} ext4 ro,nofail,x-systemd.device-timeout=600s 0 0\n"
    )
    (tree / DATA[1:]).mkdir()
    units = tree / "etc/systemd/system"
    (units / "clip-test.service").write_text(_UNIT)
    (units / "default.target.wants").mkdir(exist_ok=True)
    (units / "default.target.wants/clip-test.service").symlink_to("../clip-test.service")
    # The tests start what they need; the rest costs time in an emulated machine.
    for name in (
        "containerd.service", "docker-registry.service", "podman.service", "podman.socket",
        "podman-auto-update.timer", "podman-auto-update.service", "podman-restart.service",
        "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
        "fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service",
        "systemd-timesyncd.service", "podman-clean-transient.service",
    ):  # fmt: skip
        for wants in units.glob("*.wants"):
            (wants / name).unlink(missing_ok=True)
    (units / "getty.target").symlink_to("/dev/null")


def _take_kernel(tree: Path, part: Path) -> None:
    """The kernel out of the tree, its modules into place, an initrd with what finds the disk."""
    linux = tree / "linux"
    (modules,) = [*linux.glob("lib/modules/*"), *linux.glob("usr/lib/modules/*")]
    (kernel,) = [*linux.glob("boot/vmlinuz-*"), *modules.glob("vmlinuz")]
    shutil.copyfile(kernel, part / "vmlinuz")
    target = tree / "usr/lib/modules" / modules.name
    target.parent.mkdir(exist_ok=True)
    modules.rename(target)
    shutil.rmtree(linux)
    run(["depmod", "--basedir", tree, modules.name], part / "log")
    write_initrd(part / "initrd", tree, modules.name)
