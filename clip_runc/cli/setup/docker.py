"""clip-runc as a runtime that Docker knows by name, in ``/etc/docker/daemon.json``.

JSON has no comments, and somebody's own order and indentation must be there afterwards as before:
one member is put in as text, and taken out as text.  What comes of it is parsed and compared with
what was wanted; where it differs, nothing is written.
"""

from __future__ import annotations

import json
import re
from typing import Any

from clip_runc.cli.setup.changes import Change, read
from clip_runc.errors import ConfigError

PATH = "/etc/docker/daemon.json"
NAME = "clip-runc"
NEXT = "systemctl reload docker; docker run --runtime clip-runc --annotation dev.clip-runc.image=…"
_RUNTIMES = re.compile(r'"runtimes"\s*:\s*\{')
# with the comma that joins it to what follows, or alone
_OURS = re.compile(rf'\n[ \t]*"{NAME}": \{{"path": "[^"\n]*"\}}(,?)')
_OURS_WHOLE = re.compile(rf'\n[ \t]*"runtimes": \{{\n[ \t]*"{NAME}": [^\n]*\n[ \t]*\}}(,?)')


def install(binary: str, root: str) -> Change:
    """The file with our runtime in it.  Raises ``ConfigError`` where it does not fit."""
    old = read(root + PATH)
    text = without(old, root) if old is not None else None
    if not (text or "").strip():
        return Change(PATH, f"{{{_member(binary)}\n}}\n", root=root)
    assert text is not None
    document = _parse(text, root)
    runtimes = document.setdefault("runtimes", {})
    if not isinstance(runtimes, dict) or NAME in runtimes:
        raise ConfigError(f"{root}{PATH} has a runtime {NAME} already", "remove it first")
    wanted = {**document, "runtimes": {**runtimes, NAME: {"path": binary}}}
    for new in _candidates(text, binary, runtimes):
        if _same(new, wanted):
            return Change(PATH, new, root=root)
    raise ConfigError(
        f"{root}{PATH} is written in a way that cannot be added to",
        f'add "{NAME}": {{"path": {json.dumps(binary)}}} to its runtimes by hand',
    )


def uninstall(root: str) -> list[Change]:
    """The file as it was; gone where our runtime was all that it had."""
    old = read(root + PATH)
    if old is None or f'"{NAME}": {{"path": ' not in old:
        return []
    rest = without(old, root)
    if rest == old:
        return []
    return [Change(PATH, rest if rest != "{\n}\n" else None, root=root)]


def without(text: str, root: str) -> str:
    """The file without our runtime, or as it is where that cannot be told."""
    document = _parse(text, root) if text.strip() else {}
    runtimes = document.get("runtimes")
    if not isinstance(runtimes, dict) or NAME not in runtimes:
        return text
    left = {name: value for name, value in runtimes.items() if name != NAME}
    only = {name: value for name, value in document.items() if name != "runtimes"}
    for pattern, wanted in ((_OURS_WHOLE, only), (_OURS, {**document, "runtimes": left})):
        new = pattern.sub("", text, count=1)
        if new != text and _same(new, wanted):
            return new
    return text


def _candidates(text: str, binary: str, runtimes: dict[str, Any]) -> list[str]:
    """Ways to put it in, the first that turns out right is taken."""
    ours = f'\n        "{NAME}": {_value(binary)}' + ("," if runtimes else "")
    found = [text[: m.end()] + ours + text[m.end() :] for m in _RUNTIMES.finditer(text)]
    at = text.find("{") + 1
    return [*found, text[:at] + _member(binary) + "," + text[at:],
            text[:at] + _member(binary) + text[at:]]  # fmt: skip


def _member(binary: str) -> str:
    return f'\n    "runtimes": {{\n        "{NAME}": {_value(binary)}\n    }}'


def _value(binary: str) -> str:
    return f'{{"path": {json.dumps(binary)}}}'


def _same(text: str, wanted: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(text) == wanted)
    except ValueError:
        return False


def _parse(text: str, root: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{root}{PATH}: {error}", "mend it, or move it away") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{root}{PATH} is no object", "mend it, or move it away")
    return found
