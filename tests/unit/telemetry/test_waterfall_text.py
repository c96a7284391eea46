from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clip_runc.telemetry.waterfall import Span
from clip_runc.telemetry.waterfall_text import WIDTH, lines, shares
from tests.unit.telemetry.waterfalls import SPANS, example


def test_a_report() -> None:
    text = list(lines(example()))
    assert text[0] == "c1: registry.example/x:1"
    assert "resolve 1.0 ms, mount 20.0 ms" in text[2]
    assert "2 reads waited, 0.60 s of the time one or more, 1 of them failed; 6 were" in text[3]
    assert any(line.startswith("layer 1 waits") and "█" in line for line in text)
    assert any("FAILED" in line and "500.0 ms" in line for line in text)
    assert max(map(len, text)) < 140


def test_a_report_without_reads_says_why() -> None:
    assert list(lines(example(None)))[-1].strip().startswith("what was read is not known")


@given(SPANS, st.integers(1, 100))
def test_shares_are_shares(spans: list[Span], columns: int) -> None:
    end = max((span.end for span in spans), default=0.0) or 1.0
    found = shares(spans, end, columns)
    assert len(found) == columns
    assert all(0 <= share <= 1.0 + 0.01 * (len(spans) + 1) for share in found)
    assert any(found) == bool(spans)


def test_one_span_fills_what_it_covers() -> None:
    found = shares([Span(0.25, 0.5, 0, 0, 0)], 1.0, 4)
    assert [round(share, 2) for share in found] == [0.0, 1.0, 1.0, 0.01]
    assert WIDTH == 60
