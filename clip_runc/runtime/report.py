"""What we say, in the format that runc says it in, at the place where it says it.

runc logs through logrus: to the file of ``--log``, as text or JSON, else to stderr.  An error goes
to stderr too, as a bare line, where the log is a file (``fatal`` in runc's utils.go).
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from clip_runc.runtime.argv import Invocation

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/@^+")
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
# logrus: the level's four letters, and its colour on a terminal
_LEVELS = {"error": ("ERRO", 31), "warning": ("WARN", 33), "info": ("INFO", 36)}
_STDERR = 2


def report_error(invocation: Invocation, message: str) -> None:
    """Tell of an error as runc does; never raises."""
    path = log_path(invocation)
    line = format_line(invocation.log_format, "error", message)
    if path and _append(path, line):
        _write(_STDERR, f"{message}\n")
    elif invocation.log_format != "json" and os.isatty(_STDERR):
        name, colour = _LEVELS["error"]
        _write(_STDERR, f"\x1b[{colour}m{name}\x1b[0m[0000] {message:<44} \n")
    else:
        _write(_STDERR, line)


def log(
    invocation: Invocation, level: str, message: str, fields: Mapping[str, object] | None = None
) -> None:
    """A line for the log, and on stderr only with ``--debug``; never raises.

    Callers read stderr of a create that worked; a line there would break the drop-in.
    """
    line = format_line(invocation.log_format, level, message, fields)
    path = log_path(invocation)
    if path:
        _append(path, line)
    elif invocation.debug:
        _write(_STDERR, line)


def log_path(invocation: Invocation) -> str:
    """The file of ``--log``, ``""`` for none.  crun has ``file:``, ``journald:``, ``syslog:``."""
    where = invocation.log
    if where.startswith(("journald:", "syslog:")):
        return ""
    return where.removeprefix("file:")


def format_line(
    log_format: str, level: str, message: str, fields: Mapping[str, object] | None = None
) -> str:
    """One line of logrus' TextFormatter (without colours) or JSONFormatter."""
    values = {"level": level, "msg": message, "time": timestamp(), **(fields or {})}
    if log_format == "json":
        return f"{{{','.join(f'{_json(k)}:{_json(values[k])}' for k in sorted(values))}}}\n"
    keys = ["time", "level", "msg", *sorted(fields or {})]
    # logrus quotes the time always: it has a colon
    return " ".join(f"{key}={_quoted(str(values[key]))}" for key in keys) + "\n"


def timestamp() -> str:
    """Now as Go's time.RFC3339 has it: local time, ``Z`` for UTC."""
    zone = time.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S") + zone


def _quoted(text: str) -> str:
    """logrus' needsQuoting, then Go's ``%q``."""
    if text and all(character in _PLAIN for character in text):
        return text
    return f'"{"".join(map(_escaped, text))}"' if text else ""


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of an argument that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable():
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json(value: object) -> str:
    """As Go's encoding/json writes it: ``<``, ``>`` and ``&`` are escaped."""
    from clip_runc.images import lean

    if not isinstance(value, (str, int)):
        value = str(value)
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = lean.dumps(value).decode()
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _append(path: str, line: str) -> bool:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o644)
    except OSError:
        return False
    try:
        return _write(fd, line)
    finally:
        os.close(fd)


def _write(fd: int, text: str) -> bool:
    try:
        os.write(fd, text.encode("utf-8", "surrogateescape"))
    except OSError:  # a closed stderr must not turn one error into two
        return False
    return True
