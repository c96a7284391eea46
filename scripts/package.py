"""Everything that is released, made from the tree: see scripts/package."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from clip_runc import __version__, config_files
from clip_runc.cli.setup import shell, systemd
from clip_runc.cli.setup.packaged import NOTE
from clip_runc.config import DEFAULTS, Settings
from clip_runc.runtime import launcher

REPOSITORY = Path(__file__).resolve().parent.parent
SITE = "/usr/lib/clip-runc/site-packages"
BIN = "/usr/bin"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
PROGRAMS = {
    "clip-runc": launcher.RUNTIME,
    "clip-runc-poststop": launcher.POSTSTOP,
    "clipctl": "clip_runc.cli.main",
    "clipd": "clip_runc.fs.supervisor",
}
# what the libraries were linked with here, and the runtime
DEPENDS = f"{PYTHON}, libfuse3-3 | libfuse3-4, libcap2, ca-certificates, runc | crun"

POSTINST = f"""\
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
{BIN}/{PYTHON} -IS -c "import sys; sys.path.append('{SITE}')
from clip_runc.runtime.launcher import compile_package
compile_package()"
[ ! -d /run/systemd/system ] || systemctl daemon-reload
# an upgrade: a clipd that runs is replaced under load, no container notices
if [ -n "$2" ] && [ -e /run/clip/clipd.json ]; then
    {BIN}/clipctl upgrade || echo "clip-runc: the old clipd goes on: clipctl upgrade" >&2
fi
"""
PRERM = f"""\
#!/bin/sh
set -e
if [ "$1" = remove ]; then
    running=$({BIN}/clipctl ps --json) || running="[]"
    if [ "$running" != "[]" ]; then
        echo "clip-runc: containers run from images that it serves; end them first (clipctl ps)" >&2
        exit 1
    fi
    {BIN}/clipctl uninstall
    if [ -d /run/systemd/system ]; then
        systemctl disable --now clip-runc-gc.timer clip-runc-metrics.service clipd.socket \\
            clipd.service || true
    fi
    {BIN}/clipctl stop
fi
find {SITE} -name __pycache__ -type d -exec rm -rf {{}} +
"""
POSTRM = """\
#!/bin/sh
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
if [ "$1" = purge ]; then
    # nothing is mounted there any more; what should be all the same is left alone
    rm -rf --one-file-system /var/lib/clip /run/clip /etc/clip-runc
fi
"""


def main(target: str) -> None:
    """Make everything in the directory ``target``; a line for each file."""
    directory = Path(target)
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch())
    os.umask(0o022)
    backend = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel"]
    subprocess.run([*backend, "-d", directory.resolve()], cwd=REPOSITORY, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    wheel = directory / f"clip_runc-{__version__}-py3-none-any.whl"
    sbom = directory / f"clip-runc-{__version__}.cdx.json"
    sbom.write_text(json.dumps(bill_of_materials(), indent=1, sort_keys=True) + "\n")
    debian = debian_package(directory, wheel, sbom)
    for path in (directory / f"clip_runc-{__version__}.tar.gz", wheel, sbom, debian):
        print(hashlib.sha256(path.read_bytes()).hexdigest(), path)


def epoch() -> int:
    """The time that everything has: as told, of the commit, or that of the change log."""
    if told := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(told)
    git = ["git", "-C", str(REPOSITORY), "log", "-1", "--format=%ct"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 1_700_000_000


def libraries() -> list[Distribution]:
    """What clip-runc needs and what that needs, without extras, by name."""
    found: dict[str, Distribution] = {}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    while wanted:
        requirement = Requirement(wanted.pop())
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        one = distribution(requirement.name)
        name = one.metadata["Name"].lower().replace("_", "-")
        if name not in found:
            found[name] = one
            wanted += one.requires or []
    return [found[name] for name in sorted(found)]


def bill_of_materials() -> dict[str, object]:
    """CycloneDX 1.5: this project and each library that is installed with it."""
    own = f"pkg:pypi/clip-runc@{__version__}"
    parts, edges = [], []
    names = {one.metadata["Name"].lower().replace("_", "-"): one for one in libraries()}
    for name, one in names.items():
        purl = f"pkg:pypi/{name}@{one.version}"
        licence = one.metadata.get("License-Expression") or one.metadata.get("License") or ""
        part: dict[str, object] = {
            "type": "library", "bom-ref": purl, "purl": purl, "name": name, "version": one.version,
        }  # fmt: skip
        if licence and "\n" not in licence:
            part["licenses"] = [{"license": {"name": licence}}]
        parts.append(part)
        edges.append({"ref": purl, "dependsOn": sorted(_direct(one, names))})
    top = {"type": "application", "bom-ref": own, "purl": own, "name": "clip-runc",
           "version": __version__, "licenses": [{"license": {"id": "Apache-2.0"}}]}  # fmt: skip
    edges.append({"ref": own, "dependsOn": [str(part["purl"]) for part in parts]})
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": top}, "components": parts, "dependencies": edges,
    }  # fmt: skip


def _direct(one: Distribution, names: dict[str, Distribution]) -> Iterator[str]:
    for text in one.requires or []:
        requirement = Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        if name in names and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
            yield f"pkg:pypi/{name}@{names[name].version}"


def debian_package(directory: Path, wheel: Path, sbom: Path) -> Path:
    """The package; no compiler and no network, for all parts are here."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    path = directory / f"clip-runc_{__version__}_{machine}.deb"
    with tempfile.TemporaryDirectory(prefix="clip-deb-", dir=directory) as name:
        root = Path(name)
        root.chmod(0o755)
        _programs(root, wheel)
        _units(root)
        _documents(root, sbom)
        _control(root, machine)
        for found in [root, *root.rglob("*")]:
            os.utime(found, (epoch(), epoch()), follow_symlinks=False)
        build = ["dpkg-deb", "--root-owner-group", "-Zzstd", "--build", str(root), str(path)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return path


def _programs(root: Path, wheel: Path) -> None:
    site = root / SITE[1:]
    site.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("clip_runc/"):
                archive.extract(name, site)
    for one in libraries():
        _library(one, site)
    (site / NOTE).write_text(f"{BIN}\n")
    for name, module in PROGRAMS.items():
        text = launcher.launcher_text(
            module, interpreter=f"{BIN}/{PYTHON}", package_dir=SITE, site_dirs=[]
        )
        _write(root / BIN[1:] / name, text, 0o755)
    for found in site.rglob("*"):
        executable = found.is_dir() or found.parent.name == "hooks"
        found.chmod(0o755 if executable else 0o644)


def _library(one: Distribution, site: Path) -> None:
    """Its files but for scripts, bytecode, and what tells how it was installed."""
    skipped = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "installed-files.txt")
    top = Path(str(one.locate_file(""))).resolve()
    for path in _files(one, top):
        file = path.relative_to(top) if path.is_relative_to(top) else None
        if file is None or "__pycache__" in file.parts or file.name in skipped:
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _files(one: Distribution, top: Path) -> list[Path]:
    """By pip's record; by that of setup.py where pip had no wheel, relative to its own place."""
    if one.read_text("RECORD") is not None:
        return [Path(os.path.normpath(top / file)) for file in one.files or []]
    names = (one.read_text("installed-files.txt") or "").split("\n")
    name = one.metadata["Name"].replace("-", "_")
    (place,) = top.glob(f"{name}-*.egg-info")
    found = [Path(os.path.normpath(place / line)) for line in names if line]
    return [path for path in found if path.is_file()]


def _units(root: Path) -> None:
    mark = "part of the package clip-runc"
    found = systemd.texts(Settings(), mark, f"{BIN}/clipd", f"{BIN}/clipctl")
    for name, text in found.items():
        whole = text.replace(", removed by clipctl uninstall", "", 1)
        _write(root / "usr/lib/systemd/system" / name, whole.encode())


def _documents(root: Path, sbom: Path) -> None:
    share = root / "usr/share"
    for name in shell.MAN:
        page = (REPOSITORY / "docs/man" / name).read_bytes()
        _write(share / "man/man8" / f"{name}.gz", gzip.compress(page, 9, mtime=0))
    places = {**shell.PLACES, "zsh": "zsh/vendor-completions/_clipctl"}
    for name, place in places.items():
        _write(share / place, shell.completion(name).encode())
    _write(share / "doc/clip-runc/copyright", (REPOSITORY / "LICENSE").read_bytes())
    _write(share / "doc/clip-runc/sbom.cdx.json", sbom.read_bytes())
    changes = (REPOSITORY / "CHANGELOG.md").read_bytes()
    _write(share / "doc/clip-runc/changelog.gz", gzip.compress(changes, 9, mtime=0))
    lines = [
        f"# {key} = {config_files.toml(value)}" for key, value in sorted(DEFAULTS.items())
    ]  # fmt: skip
    text = "# Every setting with its default; clipctl config explain KEY says what it does.\n"
    _write(root / "etc/clip-runc/config.toml", (text + "\n".join(lines) + "\n").encode())


def _control(root: Path, machine: str) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in files) // 1024
    sums = "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  "
        f"{path.relative_to(root)}\n"
        for path in files
    )
    control = (
        f"Package: clip-runc\nVersion: {__version__}\nArchitecture: {machine}\n"
        "Maintainer: clip-runc maintainers <maintainers@clip-runc.example>\n"
        f"Installed-Size: {size}\nDepends: {DEPENDS}\nSection: admin\nPriority: optional\n"
        "Description: OCI runtime that starts containers from images not on the machine yet\n"
        " It takes the place of runc, and fetches from the registry what a container reads\n"
        " when it reads it.\n"
    )
    place = root / "DEBIAN"
    _write(place / "control", control.encode())
    _write(place / "conffiles", b"/etc/clip-runc/config.toml\n")
    _write(place / "md5sums", sums.encode())
    for name, script in (("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)):
        _write(place / name, script.encode(), 0o755)


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


if __name__ == "__main__":
    main(sys.argv[1])
