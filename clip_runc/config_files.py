"""Configuration files for people: which line is wrong, where a value comes from, what keys mean.

Kept apart from ``config``, which the shim loads for every container.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import NamedTuple

from clip_runc import config
from clip_runc.errors import ConfigError


class Origin(NamedTuple):
    """A value in force and where it was set: a file with its line, a variable, or nowhere."""

    value: object
    place: str


def parse(name: str, data: bytes) -> dict[str, object]:
    """The values of the file ``name``.  Raises the first of ``problems``."""
    values, problems = examine(name, data)
    if problems:
        raise problems[0]
    return values


def examine(name: str, data: bytes) -> tuple[dict[str, object], list[ConfigError]]:
    """The values that can be used, and everything that is wrong with the others."""
    try:
        text = data.decode()
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, [ConfigError(f"{name}: {error}", "the file is TOML: key = value")]
    good: dict[str, object] = {}
    problems = []
    for key, value in values.items():
        try:
            good[key] = config.check(key, value)
        except ConfigError as error:
            place = f"{name}:{line_of(text, key)}"
            problems.append(ConfigError(f"{place}: {error.message}", error.hint))
    return good, problems


def line_of(text: str, key: str) -> int:
    """The line where the key stands, as a key of its own or as the name of a table; from 1."""
    for number, line in enumerate(text.split("\n"), 1):
        left = line.partition("=")[0].strip().strip("[] \t")
        if left.partition(".")[0].strip(" \t\"'") == key:
            return number
    return 1


def check_all() -> list[tuple[str, list[ConfigError]]]:
    """Each file in force, and the environment, with what is wrong with it.

    Raises ``ConfigError`` where the drop-ins cannot be listed.
    """
    found: list[tuple[str, list[ConfigError]]] = []
    for name in _files():
        try:
            data = Path(name).read_bytes()
        except FileNotFoundError:
            if name != config.CONFIG_FILE:
                found.append((name, [ConfigError(f"{name}: no such configuration file")]))
            continue
        except OSError as error:
            found.append((name, [ConfigError(f"{name}: {error.strerror}")]))
            continue
        found.append((name, examine(name, data)[1]))
    try:
        values = config.from_environment()
    except ConfigError as error:
        return [*found, ("environment", [error])]
    return [*found, ("environment", [])] if values else found


def origins() -> dict[str, Origin]:
    """Every key with its value in force.  Raises ``ConfigError`` as ``config.load`` does."""
    settings = config.load()
    places = dict.fromkeys(config.DEFAULTS, "default")
    for name in _files():
        if os.path.exists(name):
            text = Path(name).read_text()
            keys = [key for key in tomllib.loads(text) if config.counts(name, key)]
            places.update({key: f"{name}:{line_of(text, key)}" for key in keys})
    for key in config.from_environment():
        places[key] = f"environment {variable(key)}"
    return {key: Origin(getattr(settings, key), place) for key, place in places.items()}


def _files() -> list[str]:
    try:
        return config.config_files()
    except OSError as error:
        raise ConfigError(f"{config.CONFIG_DIR}: {error.strerror}") from None


def variable(key: str) -> str:
    """The environment variable that overrides a key."""
    return f"{config.ENVIRONMENT}{key.upper()}"


def toml(value: object) -> str:
    """A value as it would stand in a file (JSON is TOML for those that we have)."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def kind(key: str) -> str:
    """What a key may be, in words."""
    default = config.DEFAULTS[key]
    if key in config.CHOICES:
        return "one of " + ", ".join(config.CHOICES[key])
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, int):
        least, most = config.LIMITS.get(key, (0, None))
        return f"a number from {least} to {most}" if most else f"a number, {least} or more"
    return "a list of texts" if isinstance(default, tuple) else "a text"


def documentation() -> dict[str, str]:
    """Each key with the comment above it in ``config.DEFAULTS``, as one line of text."""
    lines = Path(config.__file__).read_text(encoding="utf-8").split("\n")
    begin = next(i for i, line in enumerate(lines) if line.startswith("DEFAULTS"))
    found: dict[str, str] = {}
    comment: list[str] = []
    for line in lines[begin + 1 : lines.index("}", begin)]:
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
        elif text.startswith('"') and ":" in text and line.startswith('    "'):
            found[text.partition('"')[2].partition('"')[0]] = " ".join(comment)
            comment = []
    return found
