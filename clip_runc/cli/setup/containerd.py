"""A runtime handler ``clip-runc`` in containerd's configuration.

A block at the end of the file, and no drop-in: until containerd 2.0 an imported file replaces the
whole section of a plugin, the node's own CRI settings with it.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from typing import Any

from clip_runc.cli.checks.engines import ANNOTATIONS, CONTAINERD, CRI, runtimes
from clip_runc.cli.setup.changes import MARK, Change, read
from clip_runc.errors import ConfigError

HANDLER = "clip-runc"
NEXT = "systemctl restart containerd; for Kubernetes: a RuntimeClass with handler clip-runc"
_BEGIN = f"# clip-runc: {MARK}, removed by clipctl uninstall\n"
# In place of the newline that the last line of the file had not.
_JOINED = f"\n{_BEGIN[:-1]} (after a line without end)\n"
_FRESH = f"{_BEGIN[:-1]} (there was no file)\n"
_END = "# clip-runc: end\n"
_VERSION = re.compile(r"version = \d\n")
_SECONDS = 20
# containerd 1.x takes a file that names one handler to name them all: without this its own, runc,
# would be gone, and with it the CRI service, whose default it is.
_BUILT_IN = """\
[plugins."{plugin}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""


def install(binary: str, root: str) -> Change:
    """The file with the block in it.  Raises ``ConfigError`` where it does not fit."""
    old = read(root + CONTAINERD)
    text = without(old or "")
    document = _parse(text, root)
    blank = not text.strip()
    version = _version_for() if blank else document.get("version", 1)
    if version not in CRI:
        raise ConfigError(
            f"{root}{CONTAINERD}: configuration version {version}",
            "containerd config migrate (2.x) or config default makes one of version 2 or 3",
        )
    if HANDLER in runtimes(document):
        raise ConfigError(f"{root}{CONTAINERD} has a handler {HANDLER} already", "remove it first")
    handlers = runtimes(document)
    options = dict(handlers.get("runc", {}).get("options") or {})
    block = f"version = {version}\n" if blank else ""
    block += "" if handlers or version > 2 else _BUILT_IN.format(plugin=CRI[version])
    new = text + _begin(old, text) + block + _block(CRI[version], binary, options) + _END
    _parse(new, root)
    return Change(CONTAINERD, new, root=root)


def uninstall(root: str) -> list[Change]:
    """The file as it was; gone where there was none and nobody has added to it."""
    old = read(root + CONTAINERD)
    if old is None or MARK not in old:
        return []
    rest = without(old)
    return [Change(CONTAINERD, None if _FRESH in old and not rest else rest, root=root)]


def _begin(old: str | None, text: str) -> str:
    """The block's first line, which says how the file without it was."""
    if not text:
        return _FRESH if old is None or _FRESH in old else _BEGIN
    return _BEGIN if text.endswith("\n") else _JOINED


def without(text: str) -> str:
    """The file without our block; what was blank before is that again."""
    for begin in (_JOINED, _FRESH, _BEGIN):
        before, found, after = text.partition(begin)
        if found:
            _, end, rest = after.partition(_END)
            if not end:
                raise ConfigError(f"{CONTAINERD}: the end of our block is gone", f"add {_END!r}")
            others = before + rest
            version = _VERSION.match(after)
            # what was added since was written for the version that we chose
            return version[0] + others if version and others.strip() else others
    return text


def _block(plugin: str, binary: str, options: dict[str, Any]) -> str:
    """The handler; ``options`` are those of the handler runc (SystemdCgroup above all)."""
    table = f'plugins."{plugin}".containerd.runtimes.{HANDLER}'
    plain = {k: v for k, v in options.items() if isinstance(v, (bool, int, str))}
    plain["BinaryName"] = binary
    return (
        f"[{table}]\n"
        '  runtime_type = "io.containerd.runc.v2"\n'
        f'  pod_annotations = ["{ANNOTATIONS}"]\n'
        f'  container_annotations = ["{ANNOTATIONS}"]\n'
        f"  [{table}.options]\n"
        + "".join(f"    {key} = {json.dumps(value)}\n" for key, value in plain.items())
    )


def _parse(text: str, root: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{root}{CONTAINERD}: {error}",
            "if its CRI runtimes are an inline table, write them as [tables]",
        ) from None


def _version_for() -> int:
    """The configuration version of the containerd that is here; 2, which 2.x takes too."""
    try:
        done = subprocess.run(
            ["containerd", "--version"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return 2
    return 3 if re.search(r"\bv?2\.\d+\.\d+", done.stdout) else 2
