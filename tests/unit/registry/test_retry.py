from __future__ import annotations

import time

import pytest

from clip_runc.errors import NotFound, RegistryError, RegistryUnreachable
from clip_runc.registry import retry
from clip_runc.registry.http_errors import Transient
from clip_runc.registry.retry import Patience, remaining


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were asked for; none is made."""
    waits: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", waits.append)
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.1)
    return waits


PROBLEM = Transient(RegistryError("broken", "mend it"))


def test_waits_grow_with_jitter(slept: list[float]) -> None:
    patience = Patience(12)
    for _ in range(11):
        patience.failed(PROBLEM)
    for number, wait in enumerate(slept):
        whole = min(0.1 * 2**number, retry.LONGEST_DELAY)
        assert whole / 2 <= wait <= whole
    with pytest.raises(RegistryError, match="broken; tried 12 times") as caught:
        patience.failed(PROBLEM)
    assert caught.value.hint == "mend it"


def test_the_kind_of_error_is_kept(slept: list[float]) -> None:
    with pytest.raises(NotFound, match=r"^x$"):
        Patience(1).failed(Transient(NotFound("x")))
    assert slept == []


def test_the_registry_may_ask_for_more(slept: list[float]) -> None:
    Patience(3).failed(Transient(RegistryError("x"), delay=20))
    assert slept == [20]


def test_no_wait_beyond_the_deadline(slept: list[float]) -> None:
    patience = Patience(3, time.monotonic() + 5)
    patience.failed(PROBLEM)
    with pytest.raises(RegistryError):
        patience.failed(Transient(RegistryError("x"), delay=20))
    assert len(slept) == 1


def test_one_immediate_turn(slept: list[float]) -> None:
    patience = Patience(2)
    immediate = Transient(RegistryError("x"), immediate=True)
    patience.failed(immediate)
    assert slept == []
    patience.failed(immediate)
    assert len(slept) == 1
    patience.progressed()
    patience.failed(immediate)
    assert len(slept) == 1


def test_remaining() -> None:
    assert remaining(None, 3, "h") == 3
    assert remaining(time.monotonic() + 100, 3, "h") == 3
    assert 0 < remaining(time.monotonic() + 1, 3, "h") <= 1
    with pytest.raises(RegistryUnreachable, match="registry h: no answer before the deadline"):
        remaining(time.monotonic() - 1, 3, "h")
