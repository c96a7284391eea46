"""Which supervisor may live; that it leaves its starter is tested in tests/integration."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.errors import ServerError
from clip_runc.fs import daemon
from clip_runc.fs.client import connect_or_wait
from clip_runc.linux.files import lock, make_private_dir


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))
    make_private_dir(settings.run_dir)
    make_private_dir(settings.lock_dir)
    return settings


def test_one_waits_for_one_that_is_dying(settings: Settings) -> None:
    receive, send = os.pipe()
    held = lock(f"{settings.lock_dir}/clipd")
    held.__enter__()
    dying = threading.Timer(0.3, held.__exit__, (None, None, None))
    dying.start()
    try:
        daemon.only_one(settings, send).__exit__(None, None, None)
    finally:
        dying.join()
        os.close(receive)
        os.close(send)


@pytest.mark.parametrize("busy", [False, True])
def test_one_whose_starter_was_killed_does_not_come_up(settings: Settings, busy: bool) -> None:
    receive, send = os.pipe()
    os.close(receive)
    held = lock(f"{settings.lock_dir}/clipd")
    if busy:
        held.__enter__()
    try:
        with pytest.raises(ServerError, match="whoever started clipd is gone"):
            daemon.only_one(settings, send)
    finally:
        os.close(send)
        if busy:
            held.__exit__(None, None, None)


def test_who_wants_to_stop_it_waits_while_it_starts(settings: Settings) -> None:
    began = time.monotonic()
    with lock(f"{settings.lock_dir}/clipd"):
        assert connect_or_wait(settings, 0.3) is None
    assert time.monotonic() - began >= 0.3
    assert connect_or_wait(settings) is None, "nobody is there"
    assert connect_or_wait(Settings(run_dir=f"{settings.run_dir}/none")) is None
