"""A password that changes while an image is mounted: the data server heals by itself."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from clip_runc.registry.fake import FakeRegistry
from tests.integration.clip_machine import ClipMachine
from tests.integration.image_maker import MANIFEST, Image


def log_in(directory: Path, host: str, password: str) -> None:
    """What ``docker login`` writes."""
    auth = base64.b64encode(f"user:{password}".encode()).decode()
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_changed_password_heals_without_a_restart(
    clip: ClipMachine, busybox_image: Image, auth: str
) -> None:
    with FakeRegistry(auth=auth, password="first") as fake:
        for blob in busybox_image.blobs:
            fake.add_blob(blob.path.read_bytes())
        fake.add_manifest("team/app", "1", busybox_image.manifest, MANIFEST)
        reference = f"{fake.host}/team/app:1"
        docker = clip.directory / "docker"
        clip.environ["DOCKER_CONFIG"] = str(docker)
        log_in(docker, fake.host, "wrong")
        denied = clip.ctl("index", reference)
        assert denied.returncode == 1 and "access denied" in denied.stderr
        log_in(docker, fake.host, "first")
        bundle = clip.bundle(reference, "/bin/cat", "/srv/data/a")
        done = clip.runc("run", "-b", bundle, "before")
        assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr

        fake.password = "second"
        fake.expire_tokens()
        log_in(docker, fake.host, "second")
        server = clip.status()["server"]
        clip.edit(bundle, lambda spec: spec["process"].update(args=["/bin/cat", "/srv/owned"]))
        clip.edit(bundle, lambda spec: spec["process"].update(user={"uid": 0, "gid": 0}))
        fetched = len(fake.requests("GET", "/blobs/"))
        done = clip.runc("run", "-b", bundle, "after")
        assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr
        assert len(fake.requests("GET", "/blobs/")) > fetched
        assert clip.status()["server"]["pid"] == server["pid"]
