"""Every message of an error that the package raises, read out of its source: docs/messages.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from clip_runc import errors

PACKAGE = Path(errors.__file__).parent
CLASSES = [
    name
    for name, one in vars(errors).items()
    if isinstance(one, type) and issubclass(one, errors.ClipError)
]
VALUE = "…"


class Message(NamedTuple):
    """``text`` and ``hint`` have … where a value stands; ``hint`` may be empty."""

    kind: str
    text: str
    hint: str


def messages() -> list[Message]:
    """All of them, each once, by class in the order of errors.py and by text."""
    found = {one for path in PACKAGE.rglob("*.py") for one in _of(ast.parse(path.read_text()))}
    return sorted(
        found, key=lambda one: (CLASSES.index(one.kind), one.text.lstrip(VALUE + ": "), one)
    )


def _of(module: ast.Module) -> Iterator[Message]:
    for node in ast.walk(module):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else _name(node.func)
        text = _template(node.args[0])
        # one that says what somebody else said has no words of its own
        if name in CLASSES and re.search(r"[a-z]{3}", text):
            hint = _template(node.args[1]) if len(node.args) > 1 else ""
            yield Message(name, text, "" if hint == VALUE else hint)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (str(one.value) if isinstance(one, ast.Constant) else VALUE for one in node.values)
        return re.sub(rf"{VALUE}+", VALUE, "".join(parts))
    return VALUE


def document(note: str) -> str:
    """The page: a heading a class, and below it a line a message."""
    lines = [
        f"{note}# Messages",
        "",
        "What the errors of clip-runc say, … for a value. Causes and what to do are in",
        "[runbook.md](runbook.md), by the same classes; what stands in brackets is said with the",
        "message.",
    ]
    kind = ""
    for one in messages():
        if one.kind != kind:
            kind = one.kind
            lines += ["", f"## {kind}", "", f"[Runbook](runbook.md#{kind.lower()})", ""]
        hint = f" ({one.hint})" if one.hint else ""
        lines.append(f"- `{one.text}{hint}`".replace("\n", " "))
    return "\n".join(lines) + "\n"
