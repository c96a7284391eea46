"""What an operator sees of a container that runs: ps, top, events, logs, metrics."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import free_port, wait_for


def scrape(path: Path) -> str:
    """GET /metrics at a unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(path))
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("Content-Type", "").startswith("text/plain; version=0.0.4")
    text = answer.read().decode()
    connection.close()
    return text


def value(text: str, sample: str) -> float:
    (found,) = re.findall(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    return float(found)


def test_a_container_from_its_start_to_its_end(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/sh", "-c", "echo x > /written; exec sleep 1000")
    root = {"uid": 0, "gid": 0}
    clip.edit(bundle, lambda spec: spec["process"].update(user=root))
    start = [clip.runtime, "--root", clip.root, "run", "--detach", "--bundle", bundle, "seen"]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)  # not the test's pipes
    subprocess.run(start, env={**os.environ, **clip.environ}, check=True, **quiet)
    rootfs = bundle / json.loads((bundle / "config.json").read_text())["root"]["path"]
    wait_for((rootfs / "written").exists, "the container to write")

    (row,) = json.loads(clip.ctl("ps", "--json", check=True).stdout)
    assert row["id"] == "seen" and row["reference"] == busybox_ref
    assert 0 <= row["lazy"] < 1 and row["fetched_bytes"] > 0
    assert 0 < row["upper_bytes"] < 1 << 20
    assert "seen" in clip.ctl("ps", check=True).stdout
    shown = clip.ctl("top", "--once", "--interval", "0.2", check=True).stdout
    assert "seen" in shown and "server" in shown and "fetched" in shown

    port, path = free_port(), clip.run_dir / "metrics.sock"
    program = [sys.executable, "-m", "clip_runc.cli.main", "metrics", "--serve"]
    exporter = subprocess.Popen(
        [*program, "--listen", f"127.0.0.1:{port}"], env={**os.environ, **clip.environ}
    )
    try:
        wait_for(path.exists, "the metrics socket", seconds=30)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = scrape(path)
        assert value(text, "clip_runc_up") == 1
        assert value(text, f'clip_runc_containers{{mode="{row["mode"]}"}}') == 1
        assert value(text, 'clip_runc_start_phase_seconds_count{phase="mount"}') == 1
        assert value(text, "clip_runc_fetched_bytes_total") >= row["fetched_bytes"] > 0
        assert value(text, 'clip_runc_reads_total{result="wait"}') == value(
            text, "clip_runc_read_wait_seconds_count"
        )
        assert value(text, "clip_runc_fetch_seconds_count") > 0
        assert value(text, "clip_runc_store_bytes") > 0
        if shutil.which("promtool"):  # Prometheus' own judgement, where it is installed
            check = ["promtool", "check", "metrics"]
            done = subprocess.run(check, input=text, capture_output=True, text=True, check=False)
            assert done.returncode == 0 and not done.stderr, done.stderr + done.stdout

        clip.runc("kill", "seen", "KILL", check=True)
        wait_for(lambda: '"stopped"' in clip.runc("state", "seen").stdout, "its end")
        clip.runc("delete", "seen", check=True)
        os.kill(clip.status()["server"]["pid"], signal.SIGKILL)
        curl = ["curl", "--silent", "--fail", f"http://127.0.0.1:{port}/metrics"]

        def restarted() -> bool:
            text = subprocess.run(curl, capture_output=True, text=True, check=True).stdout
            return value(text, "clip_runc_server_restarts_total") == 1

        wait_for(restarted, "another server", seconds=30)
        refused = subprocess.run([*curl[:-1], f"http://127.0.0.1:{port}/"], check=False)
        assert refused.returncode == 22
    finally:
        exporter.terminate()
        exporter.wait(30)

    events = [json.loads(one) for one in clip.ctl("events", "--json").stdout.splitlines()]
    kinds = [one["event"] for one in events]
    assert kinds.count("container-started") == kinds.count("container-removed") == 1
    assert "clipd-started" in kinds and "server-ended" in kinds
    (start,) = [one for one in events if one["event"] == "container-started"]
    assert start["container"] == "seen" and start["mount_ms"] > 0 and start["mode"] == row["mode"]
    only = clip.ctl("events", "--container", "seen").stdout.splitlines()
    assert len(only) == 2 and "container-removed" in only[1]
    assert "signal 9" in clip.ctl("logs", check=True).stdout
    assert len(clip.ctl("logs", "-n", "2", check=True).stdout.splitlines()) == 2


def test_without_clipd(clip: ClipMachine) -> None:
    text = clip.ctl("metrics", check=True).stdout
    assert value(text, "clip_runc_up") == 0
    assert "clip_runc_reads_total" not in text
    assert clip.ctl("ps", check=True).stdout.startswith("id")
    assert "does not run" in clip.ctl("top", "--once", "-d", "0.2", check=True).stdout
    assert not clip.ctl("events", check=True).stdout
    refused = clip.ctl("metrics", "--listen", "0.0.0.0:9464")
    assert refused.returncode == 1 and "loopback" in refused.stderr


def test_an_image_that_is_not_lazy_and_a_start_that_fails(
    clip: ClipMachine, busybox_ref: str
) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/true")
    shutil.rmtree(clip.state / "indexes")
    missing = f"{busybox_ref.rpartition(':')[0]}:missing"
    clip.edit(bundle, lambda spec: spec["annotations"].update({"dev.clip-runc.image": missing}))
    assert clip.runc("run", "--bundle", bundle, "failed").returncode == 1
    clip.configure(explicit_policy="pass", trusted_registries=[])
    clip.runc("run", "--bundle", bundle, "passed")
    events = [json.loads(one) for one in clip.ctl("events", "--json").stdout.splitlines()]
    found = {one["event"]: one for one in events}
    assert found["start-failed"]["container"] == "failed"
    assert found["start-failed"]["error"] == "NotFound"
    assert found["not-lazy"]["container"] == "passed"


def test_events_are_followed(clip: ClipMachine) -> None:
    program = [sys.executable, "-u", "-m", "clip_runc.cli.main", "events", "--follow"]
    environ = {**os.environ, **clip.environ}
    follower = subprocess.Popen(program, env=environ, stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    try:
        time.sleep(0.5)
        clip.ctl("mount", "--help", check=True)
        from clip_runc import events

        clip.run_dir.mkdir(parents=True, exist_ok=True)
        events.note(clip.settings, "tick", {"text": "two words", "n": 1})
        assert re.search(r" tick +n=1$", follower.stdout.readline().rstrip())
    finally:
        follower.kill()
        follower.communicate()
