"""What is fetched when layers are known already: counted at the registry."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.images.make import index_image
from clip_runc.registry.fake import FakeRegistry
from tests.unit.images.small_clip import sha256, tar_of

TARS = [tar_of({f"file{n}": random.Random(n).randbytes(300_000)}) for n in range(4)]
BLOBS = [gzip.compress(tar, 1, mtime=0) for tar in TARS]

PROGRAM = """
import sys
from clip_runc.config import Settings
from clip_runc.images.make import index_image
settings = Settings(state_dir=sys.argv[1], run_dir=sys.argv[2])
index_image(settings, sys.argv[3], sys.argv[4], store=False)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as found:
        yield found


def add(fake: FakeRegistry, tag: str, numbers: list[int]) -> str:
    diff_ids = [sha256(TARS[number]) for number in numbers]
    fake.add_image("team/app", tag, [BLOBS[number] for number in numbers], diff_ids=diff_ids)
    return str(fake.reference("team/app", tag))


def fetched(fake: FakeRegistry) -> list[int]:
    """Which layers were asked for so far."""
    paths = [seen.path for seen in fake.requests("GET", "/blobs/")]
    return [n for path in paths for n, blob in enumerate(BLOBS) if sha256(blob) in path]


def test_of_an_image_with_one_new_layer_that_is_fetched(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    index_image(settings, add(fake, "1", [0, 1, 2]), str(tmp_path / "a.clip"), store=False)
    fake.seen.clear()
    result = index_image(settings, add(fake, "2", [0, 1, 3, 2]), str(tmp_path / "b.clip"))
    assert fetched(fake) == [3]
    assert result.fetched == len(BLOBS[3])


def wait_for(ready, what: str) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def kept(settings: Settings) -> list[str]:
    return [name for name in os.listdir(settings.layer_index_dir) if name[0] != "."]


def test_killed_in_the_second_layer(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    reference = add(fake, "1", [0, 1, 2])
    output = tmp_path / "a.clip"
    fake.fault("stall_body", 600, on=sha256(BLOBS[1]))
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, settings.state_dir, settings.run_dir, reference, output],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
    )
    try:
        # the fake notes a request before it stalls in its body
        wait_for(lambda: fake.faults[0].times == 0, "the second layer was not asked for")
        wait_for(lambda: len(kept(settings)) == 2, "the other layers were not kept")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not output.exists()
    fake.heal()
    fake.seen.clear()
    result = index_image(settings, reference, str(output), store=False)
    assert fetched(fake) == [1]
    assert result.fetched == len(BLOBS[1])
    whole = tmp_path / "whole.clip"
    index_image(settings, reference, str(whole), store=False, reuse=False)
    assert whole.read_bytes() == output.read_bytes()
