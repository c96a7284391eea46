"""What the documents have people type, typed as it stands on a machine without anything of ours.

The ``sh`` and ``python`` blocks of a document are run in their order, on one machine, but for those
marked ``<!-- not run: why -->``.  ``registry.example`` stands for the registry of the tests.
"""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.registry.fake import FakeRegistry
from tests.integration.busybox_images import base_layer
from tests.integration.daemons import DockerRegistry
from tests.integration.documents import DOCUMENTS, Block, blocks, name
from tests.integration.image_maker import MANIFEST, Image, write_image, write_layer
from tests.integration.newcomer import Newcomer
from tests.integration.prerequisites import need
from tests.integration.pushing import push

RUN = {
    document: [one for one in blocks(document) if one.language in ("sh", "python") and not one.why]
    for document in DOCUMENTS
}
PASSWORD = "a-word-of-passage"
SAID = {
    "tutorial.md": ["hello", "clip_runc_up 1"],
    "beta9.md": ["✓ /bin -> usr/bin", "started"],
    "private-registry.md": ["the manifest can be read, with credentials", "\nread\n"],
    "prefetch-in-ci.md": ["python3 -m http.server 8399: ", "sleep 60: "],
    "slow-start.md": ["resolve ", "clipd: supervisor"],
    "store-limit.md": ["layers removed"],
    "upgrade.md": ["→"],
}
WORD = f"printf {PASSWORD} > password\n"
# What the machine has when the reader comes: an installed clip-runc, and engines that run here:
# no init system, no network of its own, no right to raise limits, a registry without TLS.
INSTALL = "clipctl install > /dev/null\n"
PODMAN = """\
cat > /etc/containers/containers.conf <<EOF
[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
EOF
printf '[[registry]]\\nlocation = "%s"\\ninsecure = true\\n' {hosts} \\
    > /etc/containers/registries.conf.d/test.conf
"""
CONTAINERD = """\
mkdir -p /etc/containerd
printf 'version = 2\\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\\n' \\
    > /etc/containerd/config.toml
containerd > /var/lib/containerd/log 2>&1 &
until ctr version > /dev/null 2>&1; do sleep 0.1; done
ctr images pull --plain-http {host}/small:latest > /dev/null
"""


@pytest.fixture
def machine(scratch: Path) -> Newcomer:
    """A directory of this session's, removed with it; nothing is mounted in it from here."""
    need("root", "fuse", "overlay", "runc", "containerd", "podman")
    return Newcomer(Path(tempfile.mkdtemp(prefix="newcomer-", dir=scratch)))


@pytest.fixture(scope="module")
def team(registry: DockerRegistry, debian_image: Image, scratch: Path) -> str:
    """The host of a registry with the images that documents name."""
    push(debian_image, registry.host, "team/app", "1.0")
    layers = [write_layer(scratch / "small", [base_layer()])]
    small = write_image(scratch / "small", layers, {"Cmd": ["/bin/sh"]})
    push(small, registry.host, "small", "latest")
    return registry.host


@pytest.fixture
def private(debian_image: Image) -> Iterator[FakeRegistry]:
    """A registry that wants a password."""
    with FakeRegistry(auth="basic", username="ci", password=PASSWORD) as fake:
        yield filled(fake, debian_image, "team/private")


@pytest.fixture
def mirror(debian_image: Image) -> Iterator[FakeRegistry]:
    """What has the images of ``team`` too."""
    with FakeRegistry() as fake:
        yield filled(fake, debian_image, "team/app")


def filled(fake: FakeRegistry, image: Image, repository: str) -> FakeRegistry:
    """``fake`` with the image as ``repository:1.0``."""
    for blob in image.blobs:
        fake.add_blob(blob.path.read_bytes())
    fake.add_manifest(repository, "1.0", image.manifest, MANIFEST)
    return fake


def script(document: Path, host: str) -> str:
    """The blocks of a document, as a script."""
    text = "\n".join(_one(block) for block in RUN[document])
    # a warning of the doctor is no failure of the document
    text = re.sub(r"^(clipctl doctor[^#\n]*)", r"\1 || [ $? = 1 ] ", text, flags=re.MULTILINE)
    text = re.sub(r"\bHOST\b", host, text)
    text = text.replace("docker.io/library/ubuntu:24.04", f"{host}/team/app:1.0")
    return text.replace("https://registry.example", f"http://{host}").replace(
        "registry.example", host
    )


def _one(block: Block) -> str:
    if block.language == "python":
        return f"{shlex.quote(sys.executable)} <<'END'\n{block.text}END\n"
    return block.text


@pytest.mark.parametrize("document", [one for one in DOCUMENTS if RUN[one]], ids=name)
def test_blocks_do_what_they_say(
    machine: Newcomer, team: str, private: FakeRegistry, mirror: FakeRegistry, document: Path
) -> None:
    host = private.host if document.name == "private-registry.md" else team
    text = script(document, host).replace("https://mirror.example", f"http://{mirror.host}")
    before = INSTALL + PODMAN.format(hosts=f"{team} {private.host}") + WORD
    if document.name in ("upgrade.md", "runbook.md"):
        before += f"clipctl run --detach --name busy {host}/team/app:1.0 sleep 300 > /dev/null\n"
    if re.search(r"^ctr ", text, re.MULTILINE):
        before += CONTAINERD.format(host=team)
    done = machine.type(text, before=before)
    assert done.returncode == 0, done.stdout
    for wanted in SAID.get(document.name, ()):
        assert wanted in done.stdout, done.stdout
    assert PASSWORD not in done.stdout
    if document.name == "mirror.md":
        assert mirror.requests("GET", "/blobs/")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_a_block_that_is_not_run_says_why(document: Path) -> None:
    """The mark belongs to a block, and to one that could be run."""
    marked = [one for one in blocks(document) if one.why]
    assert len(marked) == document.read_text().count("<!-- not run: ")
    for one in marked:
        assert one.language in ("sh", "python") and len(one.why or "") > 10, one.text
