"""Counters and histograms of the store."""

from __future__ import annotations

from clip_runc.store.stats import BOUNDS, Stats


def test_a_time_is_counted_where_it_belongs():
    stats = Stats()
    for seconds in (0, BOUNDS[0], BOUNDS[0] + 1e-9, BOUNDS[-1], BOUNDS[-1] + 1):
        stats.waited(seconds)
    assert stats.wait_counts == [2, 1, 0, 0, 0, 0, 1, 1]
    assert stats.waits == 5 == sum(stats.wait_counts)
    stats.fetched(100, 0.01)
    assert (stats.requests, stats.fetched_bytes, stats.fetch_counts[2]) == (1, 100, 1)


def test_sums():
    total, one = Stats(hits=1), Stats(hits=2)
    one.waited(0.05)
    one.waited(0.05)
    total.add(one)
    total.add(one)
    assert total.hits == 5 and total.waits == 4
    assert total.wait_counts[3] == 4 and one.wait_counts[3] == 2
    assert "_lock" not in total.as_dict()
