"""Sums over events."""

from __future__ import annotations

from clip_runc.telemetry.starts import BOUNDS, Starts, phases

EVENT = {"event": "container-started", "mode": "erofs", "resolve_ms": 0.4, "mount_ms": 40.0}


def test_phases_in_their_order() -> None:
    assert phases({**EVENT, "odd_ms": "x"}) == [("resolve", 0.0004), ("mount", 0.04)]


def test_sums() -> None:
    seen = Starts()
    seen.add([EVENT, EVENT, {"event": "server-ended"}])
    seen.add([{**EVENT, "mode": "tree", "mount_ms": 1e6}])
    assert seen.events == {"container-started": 3, "server-ended": 1}
    assert seen.modes == {"erofs": 2, "tree": 1}
    assert seen.counts["resolve"][0] == 3
    assert seen.counts["mount"][BOUNDS.index(0.05)] == 2 and seen.counts["mount"][-1] == 1
    assert seen.seconds["mount"] == 1000.08
