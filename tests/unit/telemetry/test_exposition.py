"""The text format, read back by what its description says."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.telemetry.exposition import Family, text

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)')


def test_counters_and_gauges() -> None:
    one = Family("a_total", "counter", "Two\nlines.").add(3, kind="x").add(1.5, kind="y")
    empty = Family("b", "gauge", "Nothing.")
    assert text([one, empty]) == (
        "# HELP a_total Two\\nlines.\n# TYPE a_total counter\n"
        'a_total{kind="x"} 3\na_total{kind="y"} 1.5\n'
    )


def test_histograms_are_cumulative() -> None:
    found = text([Family("t", "histogram", "h").histogram((0.5, 1), [2, 0, 3], 7.25, p="m")])
    assert found.splitlines()[2:] == [
        't_bucket{p="m",le="0.5"} 2',
        't_bucket{p="m",le="1"} 2',
        't_bucket{p="m",le="+Inf"} 5',
        't_sum{p="m"} 7.25',
        't_count{p="m"} 5',
    ]
    with pytest.raises(ValueError):
        Family("t", "histogram", "h").histogram((1,), [1, 2, 3], 0)


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 1 << 53))
def test_any_label_and_value(label: str, value: float) -> None:
    line = text([Family("a", "gauge", label).add(value, x=label)]).split("\n", 2)[2]
    found = SAMPLE.fullmatch(line[:-1].replace("\r", " ")) or SAMPLE.fullmatch(line[:-1])
    assert found is not None and float(found[3]) == value
