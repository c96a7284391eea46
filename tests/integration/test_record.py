"""What a command reads is recorded once, and fetched first from then on."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from clip_runc.images.local import find
from clip_runc.index.clipfile import ClipFile
from tests.integration.clip_machine import ClipMachine

WORK = ("python3", "-c", "import json, email.mime.text, urllib.request; print('worked')")


def lists(clip: ClipMachine, reference: str):
    image = find(clip.settings, reference)
    assert image is not None
    with ClipFile.open(image.index_path) as index:
        return index.prefetch(), index


def record(clip: ClipMachine, *arguments: str) -> dict[str, Any]:
    """``clipctl record --json`` with the clip-runc of this machine."""
    path = {"PATH": f"{clip.bin}:{os.environ['PATH']}"}
    done = clip.ctl("record", "--json", *arguments, check=True, environ=path)
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_recorded_command_finds_its_bytes_there(clip: ClipMachine, debian_ref: str) -> None:
    clip.index(debian_ref)
    before = json.loads(clip.ctl("inspect", "--json", debian_ref, check=True).stdout)
    made = record(clip, debian_ref, "--", *WORK)
    assert made["command"] == list(WORK)
    assert 0 < made["bytes"] < made["image_bytes"] and made["phases"] >= 1
    # nothing of the recording stays
    assert not list(clip.state.glob("record-*")) and not list(clip.run_dir.glob("record-*"))

    found, _ = lists(clip, debian_ref)
    assert [one.command for one in found] == [WORK]
    after = json.loads(clip.ctl("inspect", "--json", debian_ref, check=True).stdout)
    assert after["content_digest"] == before["content_digest"]
    assert after["prefetch"][0]["bytes"] == made["bytes"]
    # the same index without the list does not replace it, and verify has nothing against it
    clip.ctl("index", "--quiet", debian_ref, check=True)
    assert lists(clip, debian_ref)[0] == found
    clip.ctl("verify", "--deep", debian_ref, check=True)

    bundle = clip.bundle(debian_ref, *WORK)
    assert clip.runc("run", "--bundle", bundle, "c1", check=True).stdout == "worked\n"
    status = clip.status()
    chunks = sum(r.last - r.first + 1 for one in found for r in one.ranges)
    assert status["store"]["chunks"] >= chunks
    clip.ctl("record", "--forget", debian_ref, check=True)
    assert lists(clip, debian_ref)[0] == []
