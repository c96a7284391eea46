"""Waterfalls for tests: by hand, and random ones."""

from __future__ import annotations

from hypothesis import strategies as st

from clip_runc.telemetry.waterfall import Span, Traces, Waterfall, waterfall

EVENT = {
    "time": "2026-11-24T10:00:00.000000Z",
    "event": "container-started",
    "container": "c1",
    "image": "registry.example/x:1",
    "digest": "sha256:" + "ab" * 32,
    "mode": "erofs",
    "source": "annotation",
    "layers": "0 complete, 2 lazy",
}
PHASES = (("resolve", 0.001), ("mount", 0.02))
TRACES = Traces(
    layers=[[0, "aa" * 32, 1000, 5000, 1], [1, "bb" * 32, 400, 800, 2]],
    touched=[[0, 0, 100.1, 100.3], [0, 2, 99.0, 99.5], [1, 1, 100.2, 0]],
    waits=[[0, 100.1, 0.2, 512, 4096, 1], [1, 100.2, 0.5, 0, 100, 0], [0, 99.0, 0.5, 0, 10, 1]],
    hits=[[0, 100.0, 3, 300], [1, 100.0, 1, 50], [0, 100.4, 2, 10], [0, 300.0, 9, 9]],
    fetches=[[0, 100.1, 0.1, 0, 300, 1], [0, 100.15, 0.1, 300, 500, 0], [1, 170.0, 1, 0, 9, 1]],
)


def example(traces: Traces | None = TRACES, path: str = "/etc/<b>&\"'") -> Waterfall:
    """Begun at 100 on the monotonic clock, a minute long."""
    return waterfall(
        EVENT, PHASES, traces, begin=100.0, seconds=60.0,
        chunk_sizes=[[300, 300, 400], [200, 200]], path=lambda layer, offset: path,
    )  # fmt: skip


_TIMES = st.floats(0, 100, allow_nan=False)
SPANS = st.lists(
    st.builds(Span, _TIMES, _TIMES, st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)),
    max_size=30,
)
