"""The supervisor's watch over containers whose lists are being fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.fs.replays import Replays

HEX = "ab" * 32


class Fake:
    """A loop whose time stands still, and the images of a supervisor."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []
        self.asked: list[tuple[dict[str, Any], Callable[[dict[str, Any]], None]]] = []

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append(callback)

    def ask(self, message: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
        self.asked.append((message, answer))

    def tick(self) -> None:
        timers, self.timers = self.timers, []
        for callback in timers:
            callback()


@pytest.fixture
def fake() -> Fake:
    return Fake()


def replays(fake: Fake, path: Path, **values: Any) -> Replays:
    settings = Settings(run_dir=str(path), **values)
    return Replays(fake, fake, settings)  # type: ignore[arg-type]  # all that is used of both


def test_the_server_is_told_and_told_again_when_the_lease_is_gone(
    fake: Fake, tmp_path: Path
) -> None:
    lease = tmp_path / "leases" / HEX / "c1"
    lease.parent.mkdir(parents=True)
    lease.touch()
    replays(fake, tmp_path).begin(HEX, {"command": ["sh"], "lease": "c1"})
    wanted = {"op": "prefetch", "image": HEX, "command": ["sh"], "lease": "c1"}
    assert fake.asked[0][0] == wanted
    fake.tick()
    assert len(fake.asked) == 1
    lease.unlink()
    fake.tick()
    assert fake.asked[1][0] == {"op": "prefetch-stop", "lease": "c1"}
    fake.asked[0][1]({})  # the answer: it is over
    fake.tick()
    assert not fake.timers, "nothing runs when there is nothing to look at"


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"command": [], "lease": "c1"},
        {"command": "sh", "lease": "c1"},
        {"command": ["sh"], "lease": ""},
        {"command": ["sh"], "lease": "../c1"},
        {"command": ["sh"], "lease": 3},
    ],
)
def test_nothing_is_fetched_for_nobody(
    fake: Fake, tmp_path: Path, message: dict[str, object]
) -> None:
    replays(fake, tmp_path).begin(HEX, message)
    assert not fake.asked and not fake.timers


def test_a_setting_turns_it_off(fake: Fake, tmp_path: Path) -> None:
    replays(fake, tmp_path, prefetch=False).begin(HEX, {"command": ["sh"], "lease": "c1"})
    assert not fake.asked
