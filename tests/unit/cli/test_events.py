"""Events for people."""

from __future__ import annotations

import re

from clip_runc.cli.events import line


def test_a_line() -> None:
    event = {
        "time": "2026-01-02T03:04:05.123456Z",
        "event": "tick",
        "a": "b c",
        "n": 1,
        "text": "x",
    }
    assert re.fullmatch(r'2026-01-0\d \d\d:\d\d:05  tick +a="b c" n=1', line(event))
    odd = line({"time": "never", "event": "tick", "why": "a\nb", "list": [1], "nothing": ""})
    assert odd.count("\n") == 0 and 'why="a\\nb"' in odd and "list=[1]" in odd
