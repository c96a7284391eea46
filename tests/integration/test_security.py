"""``clipctl doctor --security`` on clipd's processes as they run, and on one that is not as it
should be; and whether a password shows anywhere that it must not.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from clip_runc.fs import start
from clip_runc.registry.fake import FakeRegistry
from tests.integration.clip_machine import ClipMachine, processes_of
from tests.integration.daemons import wait_for
from tests.integration.image_maker import MANIFEST, Image

PASSWORD = "correct-horse-battery-7f3a"


def look(clip: ClipMachine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(clip.ctl("doctor", "--security", "--json").stdout)
    return found


def role(found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [one for one in found if one["subject"].split()[0] == name]


def test_each_process_as_it_runs(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/cat", "/srv/data/a")
    clip.runc("run", "--bundle", bundle, "one", check=True)
    found = look(clip)
    wrong = [one for one in found if one["level"] == "failure"]
    assert not wrong
    (server,) = role(found, "server")
    assert f"uid {clip.settings.server_uid}, no capability, no_new_privs" in server["text"]
    assert "seccomp filter, cannot be dumped" in server["text"]
    assert [len(role(found, name)) for name in ("supervisor", "keeper")] == [1, 1]
    assert str(clip.status()["supervisor"]["pid"]) in role(found, "supervisor")[0]["subject"]

    # one that kept root, with a variable that steers the loader
    argv = start.command("server", clip.settings, [])
    script = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, *argv[3:]],
        env={"LD_LIBRARY_PATH": "/nowhere"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as impostor:
        assert impostor.stdout
        impostor.stdout.readline()
        lines = [one for one in look(clip) if one["subject"] == f"server {impostor.pid}"]
        impostor.communicate()
    said = "\n".join(one["text"] for one in lines if one["level"] == "failure")
    for wanted in ("uids", "LD_LIBRARY_PATH", "CapEff", "no_new_privs", "dumped", "system call"):
        assert wanted in said

    socket = Path(clip.settings.socket)
    socket.chmod(0o666)
    shown = clip.ctl("doctor", "--security")
    assert shown.returncode == 2
    assert f"chmod 600 {socket}" in shown.stdout


def test_a_password_is_nowhere(clip: ClipMachine, busybox_image: Image) -> None:
    """While an image is read with it: in no argument, environment, log or file of ours."""
    with FakeRegistry(auth="token", password=PASSWORD) as fake:
        for blob in busybox_image.blobs:
            fake.add_blob(blob.path.read_bytes())
        fake.add_manifest("team/app", "1", busybox_image.manifest, MANIFEST)
        docker = clip.directory / "docker"
        docker.mkdir()
        auth = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        login = json.dumps({"auths": {fake.host: {"auth": auth}}})
        (docker / "config.json").write_text(login)
        clip.environ["DOCKER_CONFIG"] = str(docker)
        clip.configure(log_level="debug")
        bundle = clip.bundle(f"{fake.host}/team/app:1", "/bin/sh", "-c", "env; sleep 1000")
        subprocess.run(
            [clip.runtime, "--root", clip.root, "run", "--detach", "--bundle", bundle, "one"],
            env={**os.environ, **clip.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        wait_for(lambda: clip.status().get("fetched", 0) > 0, "a fetch")
        marks = [PASSWORD, auth]
        assert not processes_of(marks)
        for one in clip.ctl("doctor", "--security", "--json"), clip.ctl("status", "--json"):
            assert PASSWORD not in one.stdout + one.stderr
        left = [
            path
            for path in clip.directory.rglob("*")
            if path.is_file()
            and path.parent != docker
            and not path.is_relative_to(clip.run_dir / "containers")
            and any(os.fsencode(mark) in path.read_bytes() for mark in marks)
        ]
        assert not left
        clip.runc("delete", "--force", "one", check=True)
