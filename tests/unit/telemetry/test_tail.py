"""Events are read once each, through rotations and whatever stands in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc import events
from clip_runc.config import Settings
from clip_runc.telemetry.tail import Tail, parse


def test_all_of_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LIMIT", 3000)
    settings = Settings(run_dir=str(tmp_path))
    tail = Tail(settings.events_file)
    assert tail.new() == []
    seen: list[object] = []
    for number in range(300):
        events.note(settings, "tick", {"n": number})
        if number % 7 == 0:
            seen += [one["n"] for one in tail.new()]
    seen += [one["n"] for one in tail.new()]
    assert seen == list(range(300))
    later = [one["n"] for one in Tail(settings.events_file).new()]
    assert later == list(range(300 - len(later), 300)) and len(later) > 40
    tail.close()


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b'{"event": "a"}\n{"eve')
    tail = Tail(str(path))
    assert [one["event"] for one in tail.new()] == ["a"]
    with path.open("ab") as file:
        file.write(b'nt": "b"}\nrubbish\n[]\n{"event": 1}\n')
    assert [one["event"] for one in tail.new()] == ["b"]
    tail.close()


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    found = parse(data)
    assert found is None or isinstance(found["event"], str)
