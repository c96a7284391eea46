"""The demonstration of the README, on the real parts (``scripts/setup`` is what CI begins with)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.integration.clip_machine import REPOSITORY, ClipMachine
from tests.integration.daemons import free_port, listens
from tests.integration.image_maker import Image
from tests.integration.prerequisites import need


def test_quickstart_runs_a_container_and_counts_bytes(
    clip: ClipMachine, debian_image: Image
) -> None:
    need("docker-registry", "debootstrap")
    home = clip.directory / "demo"
    home.mkdir()
    (home / "debian").symlink_to(debian_image.layout)
    port = free_port()
    environ = {"CLIP_DEMO_HOME": str(home), "CLIP_DEMO_PORT": str(port), "COLUMNS": "100"}
    environ["PATH"] = f"{clip.bin}:{os.environ['PATH']}"
    program: list[str | Path] = [sys.executable, REPOSITORY / "scripts/quickstart.py"]
    try:
        done = clip.call(program, environ=environ, seconds=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Python 3.11" in done.stdout
        assert "says hello" in done.stdout
        row = next(line for line in done.stdout.splitlines() if "fetched by this container" in line)
        share = float(row.rpartition("%")[0].split()[-1])
        assert 0 < share < 60, row
        assert listens(port)
        # as scripts/provision does for a newcomer's virtual machine
        user = clip.directory / "user"
        again = clip.call([*program, "--bundle", user], environ=environ, seconds=300)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "Nothing had to be fetched" in again.stdout
        done = clip.runc("run", "ctr1", cwd=user)
        assert done.returncode == 0 and "says hello" in done.stdout, done.stderr
    finally:
        clip.call([*program, "--stop"], environ=environ)
    assert not listens(port)
