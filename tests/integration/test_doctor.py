"""``clipctl doctor`` on this machine, with real mounts."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.clip_machine import ClipMachine, mounts_below


def test_it_mounts_in_each_mode_and_leaves_nothing(clip: ClipMachine) -> None:
    done = clip.ctl("doctor", "--json", "127.0.0.1:1")
    found = {one["subject"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 2, "nobody listens on port 1"
    assert found["registry 127.0.0.1:1"]["level"] == "failure"
    assert found["mode tree"]["level"] == "ok", found["mode tree"]["text"]
    assert found["FUSE"]["level"] == found["pidfd"]["level"] == "ok"
    assert not mounts_below(clip.directory)
    assert not [path for path in Path(clip.directory).iterdir() if "doctor" in path.name]
    assert "self-test" not in found
