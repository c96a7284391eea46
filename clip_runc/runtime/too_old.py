"""Specs that the runtime at hand is too old for, told in words that say what would help.

The runtime itself says ``namespace {"time" ""} does not exist`` or ``unknown version specified``.
Its version is asked for where a spec has something of the kind, and remembered until reboot.
"""

from __future__ import annotations

import os

from clip_runc.errors import BundleError
from clip_runc.runtime.spec import has_time_namespace, seccomp_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from clip_runc.config import Settings

    Version = tuple[int, ...]

_SECONDS = 10


def refuse(settings: Settings, real: str, spec: dict[str, object]) -> None:
    """Raise ``BundleError`` if ``real`` is known to refuse the spec; what we do not know passes."""
    wanted = list(_demands(os.path.basename(os.path.realpath(real)), spec))
    if not wanted:
        return
    name, version = _version(settings, real)
    for what, first in wanted:
        if version and version < first:
            words, needed = (".".join(map(str, one)) for one in (version, first))
            message = f"config.json has {what}, which {name} {words} ({real}) does not know"
            raise BundleError(message, f"{name} {needed} or newer does; or take it out")


def _demands(program: str, spec: dict[str, object]) -> Iterator[tuple[str, Version]]:
    """What the spec has that needs a certain version: words, and the first version that takes it.

    Seen with runc 1.1.5, 1.1.15 and 1.3.6 and crun 1.8.1 and 1.21; crun's check of ociVersion went
    with 1.14.3 (its pull request 1417).
    """
    if program.startswith("runc"):
        if has_time_namespace(spec):
            yield "a time namespace", (1, 2, 0)
        if seccomp_flags(spec):
            yield "linux.seccomp.flags", (1, 2, 0)
    elif program.startswith("crun"):
        version = spec.get("ociVersion")
        if isinstance(version, str) and parse(version)[:2] > (1, 1):
            yield f"ociVersion {version}", (1, 14, 3)


def parse(text: str) -> Version:
    """The numbers that a version begins with: ``1.1.5+ds1`` is (1, 1, 5); () for none."""
    found = []
    for part in text.split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
        if digits != part:
            break
    return tuple(found)


def _version(settings: Settings, real: str) -> tuple[str, Version]:
    """Name and version of the program; ``()`` for one that does not say."""
    status = os.stat(real)
    identity = f"{real} {status.st_dev}:{status.st_ino}:{status.st_mtime_ns}"
    cache = f"{settings.run_dir}/runtime-version"
    known = _read(cache)
    if known[:1] != [identity]:
        known = [identity, *_ask(real)]
        _write(cache, "\n".join(known))
    return known[1], parse(known[2])


def _ask(real: str) -> tuple[str, str]:
    import subprocess

    try:
        done = subprocess.run(
            [real, "--version"], capture_output=True, timeout=_SECONDS, check=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "", ""
    words = done.stdout.decode("utf-8", "replace").split()
    return (words[0], words[2]) if words[1:2] == ["version"] and len(words) > 2 else ("", "")


def _read(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            found = file.read(8192).split("\n")
    except OSError:
        return []
    return found if len(found) == 3 else []


def _write(path: str, text: str) -> None:
    from clip_runc.linux.files import write_atomic

    try:
        write_atomic(path, text.encode("utf-8", "surrogateescape"))
    except OSError:
        return  # nothing was mounted yet: asked again the next time
