"""A stub of a private image in Kubernetes: pull secrets get to the node as the document says.

The kubelet's part (a volume of Secrets, renewed by swapping a link) and the DaemonSet's (its own
script, taken from docs/kubernetes) are played; containerd, the registry and its passwords are real.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip_runc.registry.credentials import Credentials
from tests.integration.clip_machine import REPOSITORY, ClipMachine
from tests.integration.cri import Cri, CriError
from tests.integration.daemons import Containerd, DockerRegistry, wait_for
from tests.integration.image_maker import Image
from tests.integration.prerequisites import need
from tests.integration.pushing import push

# crypt(3) of each with the salt $2y$05$abcdefghijklmnopqrstuu; docker-registry takes bcrypt only
BCRYPT = {
    "first": "$2y$05$abcdefghijklmnopqrstuu3rQZA.e/048YzLTJ55aycWHfqo0a49W",
    "second": "$2y$05$abcdefghijklmnopqrstuuKbPhTOR7Pvo59BRa0eQ090CMHpax.C6",
}
MANIFEST = REPOSITORY / "docs/kubernetes/pull-secrets.yaml"


class Node:
    """The directories of the DaemonSet's volumes."""

    def __init__(self, directory: Path) -> None:
        self.secrets, self.credentials = directory / "secrets", directory / "credentials.d"
        self.secrets.mkdir(parents=True)
        self.credentials.mkdir()
        self.version = 0

    def secret(self, host: str, user: str, password: str) -> None:
        """What the kubelet does for a Secret that is new or has changed."""
        self.version += 1
        new = self.secrets / f"..{self.version}"
        new.mkdir()
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        name = "kubernetes-team.json"
        (new / name).write_text(json.dumps({"auths": {host: {"auth": auth}}}))
        link = self.secrets / "..tmp"
        link.symlink_to(new.name)
        link.rename(self.secrets / "..data")
        if not (self.secrets / name).exists():
            (self.secrets / name).symlink_to(f"..data/{name}")

    def copy(self) -> None:
        """One round of the DaemonSet's loop."""
        text = MANIFEST.read_text()
        script = textwrap.dedent(text.partition("- |\n")[2].partition("        resources:")[0])
        for path, place in (("/secrets", self.secrets), ("/node", self.credentials)):
            script = script.replace(f"{path}/", f"{place}/")
        assert "sleep 30" in script
        once = script.replace("sleep 30", "exit 0")
        subprocess.run(["busybox", "sh", "-c", once], check=True)


@pytest.fixture
def node(scratch: Path, tmp_path: Path) -> Node:
    return Node(scratch / f"node-{tmp_path.name}")


class Private(DockerRegistry):
    """A docker-registry that wants the password of ``team`` for everything."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.htpasswd = directory / "htpasswd"
        self.password("first")
        more = f"auth: {{htpasswd: {{realm: test, path: {self.htpasswd}}}}}\n"
        super().__init__(directory, more=more)

    def password(self, word: str) -> None:
        """Change it; docker-registry reads the file again when its time has changed."""
        self.htpasswd.write_text(f"team:{BCRYPT[word]}\n")


@pytest.fixture
def private(scratch: Path, tmp_path: Path) -> Iterator[Private]:
    need("docker-registry", "busybox")
    daemon = Private(scratch / f"private-{tmp_path.name}")
    yield daemon
    daemon.stop()


@pytest.fixture
def machine(clip_with: Callable[..., ClipMachine], node: Node) -> ClipMachine:
    return clip_with(credentials_dir=str(node.credentials))


@pytest.fixture
def kubelet(machine: ClipMachine, plain_ref: str) -> Iterator[Cri]:
    need("containerd", "curl")
    daemon = Containerd(
        machine.directory / "node", pause=plain_ref, binary=str(machine.runtime),
        environ=machine.environ,
    )  # fmt: skip
    yield Cri(daemon.socket, machine.directory / "pods")
    daemon.stop()


def test_pod_of_a_private_stub(
    kubelet: Cri,
    machine: ClipMachine,
    node: Node,
    private: Private,
    plain_ref: str,
    busybox_image: Image,
) -> None:
    node.secret(private.host, "team", "first")
    node.copy()
    copied = node.credentials / "kubernetes-team.json"
    assert (copied.stat().st_mode & 0o777, os.listdir(node.credentials)) == (0o600, [copied.name])
    source = push(busybox_image, private.host, "team/app", "1", Credentials("team", "first"))
    stub = f"{private.host}/team/stub:1"
    machine.ctl("publish", source, stub, check=True)

    with pytest.raises(CriError, match=r"401|authori"):
        kubelet.pull(stub)
    kubelet.pull(stub, ("team", "first"))
    kubelet.pull(plain_ref)
    sandbox = kubelet.run_sandbox("private")
    assert run(kubelet, sandbox, stub, "cat /srv/data/a; head -c 6 /srv/data/big") == "one 012345"

    private.password("second")
    node.secret(private.host, "team", "second")
    node.copy()
    assert run(kubelet, sandbox, stub, "cat /srv/no/parents/here; id -u") == "implied 1234"
    kubelet.remove_sandbox(sandbox)

    (node.secrets / copied.name).unlink()
    node.copy()
    assert os.listdir(node.credentials) == []


def run(kubelet: Cri, sandbox: str, image: str, script: str) -> str:
    """What a container printed, words joined by blanks."""
    container = kubelet.create(sandbox, "private", image, ["/bin/sh", "-c", script])
    kubelet.start(container)
    end = time.monotonic() + 60
    wait_for(lambda: kubelet.exited(container) is not None, "the container's end", 60)
    assert time.monotonic() < end
    log = kubelet.logs / "private.log"
    lines = [line.split(" ", 3)[3] for line in log.read_text().splitlines()]
    kubelet.remove(container)
    log.unlink()
    return " ".join(lines)
