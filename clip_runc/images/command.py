"""A command as the key of a prefetch list: its arguments, shortened alike by all who ask.

On the way of a cold create, so it imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_TEXT = 4096


def key_of(arguments: Sequence[object]) -> list[str]:
    """As many arguments as fit into some thousand characters, the last one cut."""
    found: list[str] = []
    left = _TEXT
    for one in arguments:
        text = str(one)[:left]
        left -= len(text)
        found.append(text)
        if not left or len(found) == 256:
            break
    return found


def arguments_of(spec: dict[str, object]) -> list[str]:
    """The key of the process in a bundle's config.json; empty where there is none."""
    process = spec.get("process")
    arguments = process.get("args") if isinstance(process, dict) else None
    return key_of(arguments) if isinstance(arguments, list) else []
