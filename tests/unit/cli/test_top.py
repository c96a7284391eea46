"""Rates between two looks at clipd."""

from __future__ import annotations

from clip_runc.cli.top import rates

STORE = {"hits": 10, "waits": 2, "wait_seconds": 1.0, "fetched_bytes": 1000, "requests": 1}


def test_rates() -> None:
    before = {"server": {"pid": 1}, "store": STORE}
    store = {"hits": 30, "waits": 4, "wait_seconds": 1.5, "fetched_bytes": 4000, "requests": 3}
    text = rates(before, {"server": {"pid": 1}, "store": {**store, "used_bytes": 5000}}, 2.0)
    assert text.startswith("reads 11/s  waits 1/s of 250 ms  fetched 1.5 kB/s in 1.0 requests/s")
    assert text.endswith("store 5.0 kB")
    assert "reads 17/s" in rates(before, {"server": {"pid": 2}, "store": store}, 2.0)
    assert rates(before, None, 1.0) == "clipd does not run"
