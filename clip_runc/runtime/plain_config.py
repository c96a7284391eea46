"""The configuration file at the price that the hot path can pay.

``python3 -I -S -c "import tomllib"`` spends 15 ms on the import (median, busy machine), because it
compiles regular expressions.  A file of plain lines (``key = "text"``, numbers, booleans, lists of
texts on one line, comments) is read here; all else, and every error, is left to ``config.load``.
"""

from __future__ import annotations

import os

from clip_runc import config
from clip_runc.config import Settings
from clip_runc.errors import ConfigError

_KEY = frozenset("abcdefghijklmnopqrstuvwxyz_")
_LIMIT = 1 << 20


def load_settings() -> Settings:
    """What ``config.load()`` gives.  Raises ``ConfigError``."""
    values = read_values()
    if values is not None:
        try:
            return Settings(**{**values, **config.from_environment()})
        except ConfigError:
            values = None  # told again below, with the name of the file and the line
    return config.load()


def read_values() -> dict[str, object] | None:
    """The values in the configuration files in force; None where ``config.load`` has to look.

    The environment is not among them: ``config.from_environment``.
    """
    try:
        paths = config.config_files()
    except OSError:
        return None
    read: list[tuple[str, dict[str, object]]] = []
    for path in paths:
        found = _read(path, may_lack=path == config.CONFIG_FILE)
        if found is None:
            return None
        read.append((path, found))
    return config.combined(read)


def _read(path: str, *, may_lack: bool) -> dict[str, object] | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return {} if may_lack else None
    except OSError:
        return None
    try:
        data = os.read(fd, _LIMIT)
    except OSError:
        return None
    finally:
        os.close(fd)
    return parse(data) if len(data) < _LIMIT else None


def parse(data: bytes) -> dict[str, object] | None:
    """The values of a TOML document of plain lines; None for any other.

    Where it gives values they are those that ``tomllib`` gives.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if any(c < " " and c not in "\t\n" for c in text) or "\x7f" in text:
        return None
    values: dict[str, object] = {}
    for line in text.split("\n"):
        line = line.strip(" \t")
        if not line or line[0] == "#":
            continue
        key, equals, rest = line.partition("=")
        key, rest = key.rstrip(" \t"), rest.lstrip(" \t")
        if not equals or not key or not all(c in _KEY for c in key) or key in values:
            return None
        value, after = _value(rest)
        if value is None or after[:1] not in ("", "#"):
            return None
        values[key] = value
    return values


def _value(text: str) -> tuple[object, str]:
    """The value at the start of ``text`` and what follows; (None, "") for one that is not plain."""
    if text[:1] == '"':
        return _string(text)
    if text[:1] == "[":
        return _strings(text[1:].lstrip(" \t"))
    word, hash_sign, comment = text.partition("#")
    word = word.rstrip(" \t")
    after = hash_sign + comment
    if word in ("true", "false"):
        return word == "true", after
    if word.isascii() and word.isdigit() and len(word) < 16 and (word == "0" or word[0] != "0"):
        return int(word), after
    return None, ""


def _string(text: str) -> tuple[str | None, str]:
    end = text.find('"', 1)
    if end < 0 or "\\" in text[:end]:
        return None, ""
    return text[1:end], text[end + 1 :].lstrip(" \t")


def _strings(text: str) -> tuple[list[str] | None, str]:
    found: list[str] = []
    while text[:1] == '"':
        value, text = _string(text)
        if value is None:
            return None, ""
        found.append(value)
        if text[:1] != ",":
            break
        text = text[1:].lstrip(" \t")
    return (found, text[1:].lstrip(" \t")) if text[:1] == "]" else (None, "")
