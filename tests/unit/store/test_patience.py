"""Reads wait less for a moment where one has just waited in vain, and then as ever."""

from __future__ import annotations

import pytest

from clip_runc.store import patience


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    return now


def test_a_read_after_a_failure_waits_shortly_and_only_for_a_moment(clock: list[float]) -> None:
    found = patience.Patience(60)
    assert found.seconds(3) == 60
    found.failed(3, 59)
    assert found.seconds(3) == 1
    assert found.seconds(4) == 60
    clock[0] += 0.2
    assert found.seconds(3) == 60


def test_short_waits_have_an_end(clock: list[float]) -> None:
    found = patience.Patience(4)
    found.failed(0, 4)
    waits = 0
    while found.seconds(0) < 4:
        found.failed(0, 0.5)
        waits += 1
        assert waits < 20
    assert waits == 8


def test_a_quick_refusal_shortens_nothing(clock: list[float]) -> None:
    found = patience.Patience(60)
    found.failed(0, 0.1)
    assert found.seconds(0) == 60


def test_memory_is_bounded(clock: list[float]) -> None:
    found = patience.Patience(1)
    for chunk in range(1000):
        found.failed(chunk, 1)
    assert len(found._failed) <= 256
