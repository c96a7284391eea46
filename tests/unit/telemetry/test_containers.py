"""What containers wrote, and how lazy they are."""

from __future__ import annotations

import os
import time
from pathlib import Path

from clip_runc.config import Settings
from clip_runc.containers import state as states
from clip_runc.containers.key import key
from clip_runc.telemetry.containers import tree_bytes, views


def test_bytes_of_a_tree(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_bytes(b"x" * 100_000)
    before = tree_bytes(str(tmp_path), time.monotonic() + 10)
    os.link(tmp_path / "sub/file", tmp_path / "again")
    (tmp_path / "link").symlink_to("/")
    after = tree_bytes(str(tmp_path), time.monotonic() + 10)
    assert before is not None and 100_000 <= before < 120_000
    assert after is not None and after - before < 10_000
    assert tree_bytes(str(tmp_path), time.monotonic() - 1) is None
    assert tree_bytes(str(tmp_path / "missing"), time.monotonic() + 10) == 0


def test_views(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path))
    for name, digits in (("one", "ab" * 32), ("two", "cd" * 32)):
        state = states.State(key("/run/runc", name))
        state.id, state.image, state.mode = name, digits, "erofs"
        os.makedirs(states.directory(settings, state.key))
        states.save(settings, state, durable=False)
    layers = [
        {"size": 300, "present": 1.0, "fetched": 50},
        {"size": 100, "present": 0.5, "fetched": 7},
    ]
    status = {"images": [{"manifest": "ab" * 32, "layers": layers}]}
    found = {one.state.id: one for one in views(settings, status)}
    assert (found["one"].lazy, found["one"].fetched) == (0.125, 57)
    assert (found["two"].lazy, found["two"].fetched) == (None, None)
    assert found["one"].as_dict()["upper_bytes"] == 0
    assert {one.lazy for one in views(settings, None)} == {None}
