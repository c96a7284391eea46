"""Logging of the long-running processes and of clipctl.

The shim does not come here: on its way to runc it imports no ``logging``; its one line
a container goes to runc's own ``--log`` (see ``runtime/report.py``).
"""

from __future__ import annotations

import json
import logging
import sys
import time


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


def configure(level: str = "info", *, as_json: bool = False) -> None:
    """Send the records of the package to stderr.  ``level`` is a name of ``logging``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    root = logging.getLogger("clip_runc")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
