"""From an image config to config.json."""

from __future__ import annotations

import pytest

from clip_runc.config import ANNOTATION_IMAGE
from clip_runc.errors import BundleError
from clip_runc.images.runtime_spec import Choices, runtime_spec

IMAGE = {
    "os": "linux",
    "architecture": "amd64",
    "config": {
        "User": "app",
        "Env": ["PATH=/bin", "LANG=C.UTF-8"],
        "Entrypoint": ["/entry"],
        "Cmd": ["serve"],
        "WorkingDir": "/srv",
        "StopSignal": "SIGINT",
        "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
        "Labels": {"team": "ml", "dev.clip-runc.index": "/etc/shadow"},
    },
}
PASSWD = b"app:x:1000:1000::/home/app:/bin/sh\n"


def test_what_the_image_says_is_what_runs() -> None:
    spec = runtime_spec(IMAGE, "localhost:5000/app:1", Choices(), passwd=PASSWD)
    process = spec["process"]
    assert process["args"] == ["/entry", "serve"]
    assert process["cwd"] == "/srv"
    assert process["user"] == {"uid": 1000, "gid": 1000}
    assert process["env"] == ["PATH=/bin", "HOME=/home/app", "LANG=C.UTF-8"]
    assert spec["annotations"]["org.opencontainers.image.stopSignal"] == "SIGINT"
    assert spec["annotations"]["org.opencontainers.image.exposedPorts"] == "443/tcp,80/tcp"
    assert spec["annotations"][ANNOTATION_IMAGE] == "localhost:5000/app:1"


def test_labels_cannot_speak_for_us() -> None:
    spec = runtime_spec(IMAGE, "localhost:5000/app:1", Choices(), passwd=PASSWD)
    assert spec["annotations"]["team"] == "ml"
    assert "dev.clip-runc.index" not in spec["annotations"]


def test_choices_replace() -> None:
    choices = Choices(args=["sh"], env=["LANG=de"], user="7:8", cwd="/", terminal=True)
    process = runtime_spec(IMAGE, "r", choices)["process"]
    assert process["args"] == ["/entry", "sh"]
    assert "LANG=de" in process["env"]
    assert "TERM=xterm" in process["env"]
    assert process["user"] == {"uid": 7, "gid": 8}
    assert process["terminal"] is True


def test_host_network_shares_names() -> None:
    spec = runtime_spec(IMAGE, "r", Choices(user="1", host_network=True))
    assert {"type": "network"} not in spec["linux"]["namespaces"]
    assert "/etc/resolv.conf" in [mount["destination"] for mount in spec["mounts"]]


def test_an_image_without_command_says_so() -> None:
    with pytest.raises(BundleError, match="names no command"):
        runtime_spec({"config": {}}, "r", Choices())
