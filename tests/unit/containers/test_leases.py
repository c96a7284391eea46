from __future__ import annotations

import os
import time

from clip_runc.config import Settings
from clip_runc.containers import leases

IMAGE, OTHER = "ab" * 32, "cd" * 32
KEY = "c1-0123456789abcdef01234567"


def test_acquire_and_release_are_idempotent(settings: Settings) -> None:
    leases.acquire(settings, IMAGE, KEY)
    leases.acquire(settings, IMAGE, KEY)
    assert os.listdir(f"{settings.lease_dir}/{IMAGE}") == [KEY]
    assert leases.release(settings, IMAGE, KEY)
    assert not leases.release(settings, IMAGE, KEY)


def test_release_all_knows_no_image(settings: Settings) -> None:
    assert leases.release_all(settings, KEY) == 0
    leases.acquire(settings, IMAGE, KEY)
    leases.acquire(settings, OTHER, KEY)
    assert leases.release_all(settings, KEY) == 2


def test_idle_counts_from_the_last_release(settings: Settings) -> None:
    now = time.time()
    assert leases.idle_seconds(settings, IMAGE, now) == float("inf")
    leases.acquire(settings, IMAGE, KEY)
    assert leases.idle_seconds(settings, IMAGE, now + 100) == 0
    leases.release(settings, IMAGE, KEY)
    assert 90 < leases.idle_seconds(settings, IMAGE, now + 100) < 110
