"""Metrics as text, in the format that Prometheus reads (version 0.0.4).

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


@dataclass
class Family:
    """A metric: its name, kind (counter, gauge, histogram), help, and its samples."""

    name: str
    kind: str
    help: str
    lines: list[str] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> Family:
        """A sample of a counter or a gauge."""
        self.lines.append(_line(self.name, labels, value))
        return self

    def histogram(
        self, bounds: Sequence[float], counts: Sequence[int], total: float, **labels: str
    ) -> Family:
        """A histogram; ``counts`` has how many fell below each bound, and beyond the last."""
        sums = list(accumulate(counts))
        for bound, count in zip([*bounds, float("inf")], sums, strict=True):
            self.lines.append(_line(f"{self.name}_bucket", {**labels, "le": _number(bound)}, count))
        self.lines.append(_line(f"{self.name}_sum", labels, total))
        self.lines.append(_line(f"{self.name}_count", labels, sums[-1]))
        return self


def text(families: Iterable[Family]) -> str:
    """All of them; those without samples are left out."""
    pieces = []
    for one in families:
        if one.lines:
            pieces.append(f"# HELP {one.name} {one.help.translate(_HELP_ESCAPES)}\n")
            pieces.append(f"# TYPE {one.name} {one.kind}\n")
            pieces += one.lines
    return "".join(pieces)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {_number(value)}\n" if inside else f"{name} {_number(value)}\n"


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
