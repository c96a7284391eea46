"""The file of events: whole lines, a bounded size, never an error."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clip_runc import events
from clip_runc.config import Settings
from clip_runc.images import lean


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path), run_dir=str(tmp_path))


def lines(path: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_line_has_time_event_and_fields(settings: Settings) -> None:
    events.note(
        settings, "one", {"container": "ctr\n1\udcff", "ms": lean.Number("1.5")}, lean.dumps
    )
    events.note(settings, "two", {"seconds": 1.5})
    first, second = lines(settings.events_file)
    assert (first["event"], first["container"], first["ms"]) == ("one", "ctr\n1\udcff", 1.5)
    assert (second["event"], second["seconds"]) == ("two", 1.5)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(first["time"]))
    assert stat.S_IMODE(os.stat(settings.events_file).st_mode) == 0o600


def test_timestamps() -> None:
    assert events.timestamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"


def test_the_size_is_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LIMIT", 2000)
    for number in range(200):
        events.note(settings, "tick", {"number": number})
    kept = [*lines(f"{settings.events_file}.1"), *lines(settings.events_file)]
    numbers = [one["number"] for one in kept]
    assert numbers == list(range(200 - len(kept), 200))
    assert 20 < len(kept) < 80


def test_writers_at_once_lose_nothing_and_mix_nothing(settings: Settings) -> None:
    program = (
        "import sys; from clip_runc import events; from clip_runc.config import Settings\n"
        "s = Settings(run_dir=sys.argv[1])\n"
        "for n in range(200): events.note(s, 'tick', {'writer': sys.argv[2], 'n': n})"
    )
    command = [sys.executable, "-c", program, settings.run_dir]
    writers = [subprocess.Popen([*command, str(number)]) for number in range(3)]
    assert [one.wait(60) for one in writers] == [0, 0, 0]
    found = {(one["writer"], one["n"]) for one in lines(settings.events_file)}
    assert len(found) == 600


def test_nothing_is_a_reason_to_fail(settings: Settings, tmp_path: Path) -> None:
    events.note(Settings(run_dir=str(tmp_path / "missing")), "lost", {})
    events.note(settings, "no JSON", {"value": object()}, lean.dumps)
    Path(settings.events_file).symlink_to("/dev/null")
    events.note(settings, "not followed", {})
    assert os.readlink(settings.events_file) == "/dev/null"


def test_what_the_shim_pays_for_it() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from clip_runc import events; "
        "print(sorted({'json', 're', 'logging', 'typing'} & set(sys.modules)))"
    )
    root = str(Path(events.__file__).parents[1])
    command = [sys.executable, "-I", "-S", "-c", program, root]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
