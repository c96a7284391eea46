from __future__ import annotations

import json
import math
from itertools import pairwise

from hypothesis import given

from clip_runc.telemetry.waterfall import Phase, Span, covered, lanes
from tests.unit.telemetry.waterfalls import SPANS, example


def test_what_lies_in_the_window_is_put_on_its_clock() -> None:
    found = example()
    assert found.phases == (Phase("resolve", 0.0, 0.001), Phase("mount", 0.001, 0.02))
    assert [(round(one.start, 3), one.seconds, one.good) for one in found.waits] == [
        (0.1, 0.2, True),
        (0.2, 0.5, False),
    ]
    assert [(one.offset, one.length, one.good) for one in found.fetches] == [
        (0, 300, True),
        (300, 200, False),
    ]
    assert [(round(one.start, 3), one.reads, one.length) for one in found.hits] == [
        (0.0, 4, 350),
        (0.4, 2, 10),
    ]


def test_sums() -> None:
    found = example()
    assert (found.wanted, found.fetched) == (500, 300)  # chunk 2 was wanted before the start
    assert math.isclose(found.waiting, 0.6)
    assert math.isclose(found.end, 0.7)
    first, second = found.layers
    assert (first.waits, first.requests, first.wanted, first.fetched) == (1, 1, 300, 300)
    assert (second.waits, second.requests, second.wanted, second.fetched) == (1, 0, 200, 0)
    assert (round(first.present, 2), second.present) == (0.33, 1.0)


def test_without_clipd_the_phases_are_left() -> None:
    found = example(None)
    assert not found.seen and found.layers == ()
    assert math.isclose(found.end, 0.021)


def test_json_is_plain() -> None:
    value = json.loads(json.dumps(example().as_dict()))
    assert value["container"] == "c1" and value["wanted"] == 500
    assert value["waits"][0]["path"] == "/etc/<b>&\"'"


@given(SPANS)
def test_lanes_overlap_nowhere_and_lose_nothing(spans: list[Span]) -> None:
    found = lanes(spans)
    assert sorted(span for lane in found for span in lane) == sorted(spans)
    for lane in found:
        assert all(before.end <= after.start for before, after in pairwise(lane))


@given(SPANS)
def test_time_is_counted_once(spans: list[Span]) -> None:
    total = covered(spans)
    longest = max((span.seconds for span in spans), default=0.0)
    assert longest - 1e-6 <= total <= sum(span.seconds for span in spans) + 1e-6
    assert math.isclose(covered([*spans, *spans]), total, abs_tol=1e-6)
