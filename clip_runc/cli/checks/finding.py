"""One line of ``clipctl doctor``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

OK, WARN, FAIL = 0, 1, 2
MARKS = ("✓", "!", "✗")


class Finding(NamedTuple):
    """What was looked at, how it is (``OK``, ``WARN``, ``FAIL``), and what to do about it."""

    level: int
    subject: str
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """For ``--json``."""
        level = ("ok", "warning", "failure")[self.level]
        return {"level": level, "subject": self.subject, "text": self.text, "remedy": self.remedy}


def worst(findings: Iterable[Finding]) -> int:
    """The exit code: 0 all well, 1 something to know, 2 something that does not work."""
    return max((finding.level for finding in findings), default=OK)
