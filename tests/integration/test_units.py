"""What the systemd units allow is enough: clipd and the exporter with no more capabilities."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clip_runc.cli.setup import systemd
from clip_runc.config import Settings
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import wait_for
from tests.integration.prerequisites import need


def unit(name: str, root: Path) -> str:
    """The text of a unit as install writes it."""
    found = {os.path.basename(one.path): one.text for one in systemd.install(Settings(), str(root))}
    text = found[name]
    assert text is not None
    return text


def confined(text: str) -> list[str]:
    """The command that runs another one with the capabilities of a unit, and no new privileges."""
    (line,) = re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
    names = [f"+{name.removeprefix('CAP_').lower()}" for name in line.split()]
    return ["setpriv", f"--bounding-set={','.join(['-all', *names])}", "--no-new-privs"]


def test_clipd_and_the_exporter(clip: ClipMachine, busybox_ref: str, tmp_path: Path) -> None:
    need("setpriv")
    environ = {**os.environ, **clip.environ}
    python = [sys.executable, "-c"]
    clipd = subprocess.Popen(
        [*confined(unit("clipd.service", tmp_path)), *python,
         "from clip_runc.fs.supervisor import main; main()"],
        env=environ, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    exporter = None
    try:
        wait_for(lambda: clip.ctl("status").returncode == 0, "clipd", seconds=60)
        assert clip.status()["supervisor"]["pid"] == clipd.pid
        exporter = subprocess.Popen(
            [*confined(unit("clip-runc-metrics.service", tmp_path)), *python,
             "from clip_runc.cli.main import main; main()", "metrics", "--serve"],
            env=environ,
        )  # fmt: skip
        clip.ctl("run", "--rm", busybox_ref, "cat /srv/data/a", check=True)
        server = clip.status()["server"]["pid"]
        os.kill(server, 9)
        wait_for(lambda: clip.status()["server"].get("state") == "serving", "a server", seconds=60)
        assert clip.status()["server"]["pid"] != server
        bundle = clip.bundle(busybox_ref, "/bin/cat", "/srv/data/big")
        assert len(clip.runc("run", "--bundle", bundle, "two", check=True).stdout) == 1 << 20
        socket = clip.run_dir / "metrics.sock"
        wait_for(socket.exists, "the exporter", seconds=30)
        curl = ["curl", "--silent", "--fail", "--unix-socket", str(socket), "http://x/metrics"]
        text = subprocess.run(curl, check=True, capture_output=True, text=True).stdout
        assert "clip_runc_up 1\n" in text
        assert 'clip_runc_process_resident_memory_bytes{process="server"}' in text
    finally:
        if exporter is not None:
            exporter.terminate()
            exporter.wait(30)
        clip.ctl("gc")
        clip.ctl("stop")
        try:
            _, errors = clipd.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            clipd.kill()
            _, errors = clipd.communicate()
        print(errors)
    assert clipd.returncode == 0


# What systemd 252 says; lower is better.  clipd mounts for the host, so it can have no mount
# namespace, which is most of what is scored.
@pytest.mark.parametrize(
    ("name", "most"),
    [("clipd.service", 6.2), ("clip-runc-gc.service", 6.4), ("clip-runc-metrics.service", 2.0)],
)
def test_the_score_of_systemd(name: str, most: float, tmp_path: Path) -> None:
    need("systemd-analyze")
    path = tmp_path / name
    path.write_text(unit(name, tmp_path))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    print(found[0])
    assert float(found[1]) <= most
