"""The real runtime: where it is, its version, and the escapes that this version is known for."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.config import Settings
from clip_runc.runtime.locate import RuntimeNotFound, find_runtime

Version = tuple[int, int, int]
_SECONDS = 20
_CHANGELOG_LIMIT = 4 << 20

# CVE, first version concerned, then for each branch the first that is mended (GitHub advisories
# GHSA-xr7r-f8xq-vfvp, GHSA-9493-h29p-rfm2, GHSA-qw9x-cqr3-wc7r, GHSA-cgrx-mc8f-2prm).  A version
# of a branch that is not named is mended from the highest of them on.
ESCAPES: tuple[tuple[str, Version, tuple[Version, ...]], ...] = (
    ("CVE-2024-21626", (1, 0, 0), ((1, 1, 12),)),
    ("CVE-2025-31133", (0, 0, 0), ((1, 2, 8), (1, 3, 3), (1, 4, 0))),
    ("CVE-2025-52565", (1, 0, 0), ((1, 2, 8), (1, 3, 3), (1, 4, 0))),
    ("CVE-2025-52881", (0, 0, 0), ((1, 2, 8), (1, 3, 3), (1, 4, 0))),
)
# The release candidate of 1.4.0 that has them mended.
_CANDIDATE = ((1, 4, 0), 3)


def check(settings: Settings) -> list[Finding]:
    """The runtime, and warnings about its version."""
    own = shutil.which("clip-runc")
    try:
        path = find_runtime(settings.runtime, [own] if own else [])
    except RuntimeNotFound as error:
        hint = "install runc (apt-get install runc), or name one: runtime = in the configuration"
        return [Finding(FAIL, "runtime", str(error), hint)]
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [Finding(FAIL, "runtime", f"{path} --version: {error}", "install it again")]
    name, text = parse(done.stdout)
    found = Finding(OK, "runtime", f"{path}: {name} {text}".strip())
    return [found, *escapes(path, text)] if name == "runc" else [found]


def parse(output: str) -> tuple[str, str]:
    """Name and version from the first line of ``--version``."""
    match = re.match(r"(\S+)\s+version\s+(\S+)", output)
    return (match[1], match[2]) if match else ("", output.partition("\n")[0])


def concerned(text: str) -> list[str]:
    """The escapes that upstream's runc of this version has; none for one that cannot be read."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)(?:[-~]rc\.?(\d+))?", text)
    if not match:
        return []
    version = (int(match[1]), int(match[2]), int(match[3]))
    candidate = int(match[4]) if match[4] else None
    return [name for name, since, mended in ESCAPES if _has(version, candidate, since, mended)]


def _has(
    version: Version, candidate: int | None, since: Version, mended: tuple[Version, ...]
) -> bool:
    if version < since:
        return False
    if candidate is not None and version == _CANDIDATE[0] and candidate >= _CANDIDATE[1]:
        return False
    for first in mended:
        if first[:2] == version[:2]:
            return version < first or (version == first and candidate is not None)
    return version < max(mended)


def escapes(path: str, text: str) -> list[Finding]:
    """What is known of this runc, and how sure that is."""
    names = concerned(text)
    if not names:
        return [Finding(OK, "escapes", f"no escape in our table concerns runc {text}")]
    package, changes = changelog(path)
    left = [name for name in names if name not in changes]
    update = "update runc: 1.2.8, 1.3.3, 1.4.0 or later, or a distribution's that names the fixes"
    if not left:
        said = f"by its version runc {text} has {', '.join(names)}; {package}'s changelog names "
        return [Finding(OK, "escapes", said + "the fix of each")]
    if changes:
        sure = f"likely: the changelog of {package} does not name the fix"
    elif package:
        sure = f"not sure: {package} is a distribution's and its changelog is not here"
    else:
        sure = "sure: by its version, and no distribution's package"
    said = f"runc {text} lets containers escape by {', '.join(left)} ({sure})"
    return [Finding(WARN, "escapes", said, update)]


def changelog(path: str) -> tuple[str, str]:
    """The distribution's package that ``path`` belongs to and its changelog; each may be empty."""
    # /usr/sbin and /sbin are the same in a merged-usr Debian, and dpkg knows one of them
    for name in dict.fromkeys([str(Path(path).resolve()), path]):
        owner = _output(["dpkg-query", "--search", name]).partition(":")[0].strip()
        if owner:
            return owner, _debian_changes(owner)
    owner = _output(["rpm", "--query", "--file", path]).strip()
    return (owner, _output(["rpm", "--query", "--changelog", owner])) if owner else ("", "")


def _debian_changes(package: str) -> str:
    try:
        with gzip.open(f"/usr/share/doc/{package}/changelog.Debian.gz", "rt") as file:
            return file.read(_CHANGELOG_LIMIT)
    except (OSError, EOFError, UnicodeDecodeError):
        return ""


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout
