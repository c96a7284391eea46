"""The supervisor's choice of what is completed in the background."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.fs.completing import RETRY_SECONDS, Completing

ONE, TWO = "ab" * 32, "cd" * 32


class Fake:
    """A loop whose time stands still, and the images of a supervisor."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []
        self.asked: list[tuple[dict[str, Any], Callable[[dict[str, Any]], None]]] = []
        self.attached: list[str] = [ONE, TWO]

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append(callback)

    def ask(self, message: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
        self.asked.append((message, answer))

    def names(self) -> list[str]:
        return self.attached

    def tick(self) -> None:
        timers, self.timers = self.timers, []
        for callback in timers:
            callback()

    def operations(self) -> list[tuple[str, str]]:
        return [(message["op"], message["image"]) for message, _ in self.asked]


@pytest.fixture
def fake() -> Fake:
    return Fake()


def completing(fake: Fake, path: Path, **values: Any) -> Completing:
    settings = Settings(run_dir=str(path), **{"background_fetch": True, **values})
    log = logging.getLogger("test")
    return Completing(fake, fake, settings, log)  # type: ignore[arg-type]  # all that is used


def lease(path: Path, image: str, name: str = "c1") -> Path:
    found = path / "leases" / image / name
    found.parent.mkdir(parents=True, exist_ok=True)
    found.touch()
    return found


def test_off_nothing_is_looked_at(fake: Fake, tmp_path: Path) -> None:
    lease(tmp_path, ONE)
    completing(fake, tmp_path, background_fetch=False).begin(ONE, {})
    assert not fake.timers and not fake.asked


def test_one_after_the_other_and_none_without_a_container(fake: Fake, tmp_path: Path) -> None:
    completing(fake, tmp_path)
    fake.tick()
    assert fake.asked == []
    for image in (ONE, TWO):
        lease(tmp_path, image)
    fake.tick()
    fake.tick()
    assert fake.operations() == [("complete", ONE)]
    fake.asked[0][1]({"left": 0})
    fake.tick()
    assert fake.operations()[1:] == [("complete", TWO)]
    fake.asked[1][1]({"left": 0})
    fake.tick()
    fake.tick()
    assert len(fake.asked) == 2
    assert not fake.timers  # nothing lacks anything: nobody looks


def test_it_ends_with_the_last_container_and_begins_again(fake: Fake, tmp_path: Path) -> None:
    held = [lease(tmp_path, ONE, name) for name in ("c1", "c2")]
    completing(fake, tmp_path)
    fake.tick()
    held[0].unlink()
    fake.tick()
    assert fake.operations() == [("complete", ONE)]
    held[1].unlink()
    fake.tick()
    assert fake.operations()[1:] == [("complete-stop", ONE)]
    fake.asked[0][1]({"left": 7})
    fake.tick()
    assert len(fake.asked) == 2
    lease(tmp_path, ONE)
    fake.tick()
    assert fake.operations()[2:] == [("complete", ONE)]


def test_what_could_not_be_had_is_tried_later(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease(tmp_path, ONE)
    completing(fake, tmp_path)
    fake.tick()
    fake.asked[0][1]({"error": "ServerError", "message": "it died"})
    fake.tick()
    assert len(fake.asked) == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + RETRY_SECONDS + 1)
    fake.tick()
    assert fake.operations() == [("complete", ONE)] * 2


def test_an_image_that_is_detached_is_forgotten(fake: Fake, tmp_path: Path) -> None:
    completing(fake, tmp_path)
    fake.attached = []
    fake.tick()
    assert not fake.timers
