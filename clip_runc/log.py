"""Logging of the long-running processes and of clipctl: lines, JSON, or fields of the journal.

A record's ``fields`` (``log.info(text, extra={"fields": {...}})``) are for machines; those with a
field ``event`` are events too (``clip_runc.events``) where ``note_events`` was called.

The shim does not come here: on its way to runc it imports no ``logging``; its one line
a container goes to runc's own ``--log`` (see ``runtime/report.py``).
"""

from __future__ import annotations

import json
import logging
import sys
import time

from clip_runc import events, journald

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings


class JsonLines(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, msg, and the record's ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "name": record.name,
            "msg": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class EventFile(logging.Handler):
    """Appends the records with a field ``event`` to the file of events."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def emit(self, record: logging.LogRecord) -> None:
        """The event, with its other fields and the text."""
        fields = dict(getattr(record, "fields", {}))
        name = fields.pop("event", None)
        if isinstance(name, str):
            events.note(self._settings, name, {**fields, "text": record.getMessage()})


def configure(level: str = "info", *, as_json: bool = False) -> None:
    """Send the records of the package to stderr.  ``level`` is a name of ``logging``.

    Text becomes fields of systemd's journal where stderr is the journal.
    """
    handler: logging.Handler
    if not as_json and journald.stderr_is_the_journal():
        handler = journald.Journal()
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(
            JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
        )
    root = logging.getLogger("clip_runc")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def note_events(settings: Settings) -> None:
    """Events among the records go to the file of events, too; after ``configure``."""
    logging.getLogger("clip_runc").addHandler(EventFile(settings))
