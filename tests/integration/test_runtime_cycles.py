"""Many containers one after the other leave nothing; bench/cycles does it a thousand times."""

from __future__ import annotations

from bench.cycles import Holdings, cycle
from tests.integration.clip_machine import ClipMachine


def test_thirty_lives_leave_nothing(clip: ClipMachine, busybox_ref: str) -> None:
    clip.configure(image_linger=600)
    bundle = clip.bundle(busybox_ref, "/bin/sleep", "60")
    cycle(clip, bundle, 1)  # clipd and the image's mount stay from now on
    before = Holdings.of(clip)
    cycle(clip, bundle, 30)
    after = Holdings.of(clip)
    assert after.differences(before) == []
