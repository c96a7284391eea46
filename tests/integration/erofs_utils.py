"""erofs-utils of other Debian releases, from the mirror in this machine's own apt sources.

Debian 12's version refuses blocks of 512 bytes.  The packages are unpacked, not installed, and run
with their own C library; a few megabytes, kept between runs.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.integration.debian_images import mirror

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Unavailable(Exception):
    """Why the packages cannot be had; what apt said."""


class ErofsUtils:
    """The programs below ``root``, an unpacked set of packages."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def run(self, program: str, *arguments: str | bytes | Path) -> subprocess.CompletedProcess[str]:
        """Run ``fsck.erofs`` or ``dump.erofs``; never raises for its exit status."""
        loader = next((self._root / "usr").glob("lib*/ld-linux*"))
        libraries = next((self._root / "usr/lib").glob("*-linux-gnu"))
        command = [loader, "--library-path", libraries, self._root / "usr/bin" / program]
        return subprocess.run(
            [*command, *arguments],
            check=False, capture_output=True, text=True, errors="replace", timeout=120,
        )  # fmt: skip


def erofs_utils(cache: Path, suite: str) -> ErofsUtils:
    """erofs-utils of a Debian suite; raises ``Unavailable``."""
    place = cache / f"erofs-utils-{suite}"
    if not place.exists():
        part = place.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        (part / "apt/lists/partial").mkdir(parents=True)
        (part / "apt/archives/partial").mkdir(parents=True)
        _download(part / "apt", suite)
        for package in (part / "apt/archives").glob("*.deb"):
            subprocess.run(["dpkg", "--extract", package, part], check=True)
        shutil.rmtree(part / "apt")
        part.rename(place)
    return ErofsUtils(place)


def _download(state: Path, suite: str) -> None:
    """Have apt fetch the package and all that it needs, as if nothing were installed."""
    try:
        address = mirror()
    except (RuntimeError, OSError) as error:
        raise Unavailable(str(error)) from error
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    (state / "sources.list").write_text(f"deb {signed}{address} {suite} main\n")
    (state / "status").touch()
    options = {
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Cache::Archives": state / "archives",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Retries": "2",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    for command in (["update"], ["install", "--yes", "--download-only", "erofs-utils"]):
        done = subprocess.run([*apt, *command], check=False, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"apt-get {command[0]}: {done.stderr.strip()[-500:]}")
