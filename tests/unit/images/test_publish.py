from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.config import Settings
from clip_runc.errors import InvalidReference, NotFound
from clip_runc.images import publish
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.image import OCI_MANIFEST, digest_of
from tests.unit.images.small_clip import GZIP_LAYER, SmallImage

PASSWD = b"root:x:0:0::/root:/bin/sh\nworker:x:7:8::/:/bin/sh\n"
CONFIG = {
    "User": "worker",
    "Entrypoint": ["serve"],
    "Env": ["PATH=/opt/bin:/bin", "A=b"],
    "Labels": {"a": "b"},
}


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


def hold(fake: FakeRegistry, platform: str, tag: str = "1") -> str:
    small = SmallImage({"etc": None, "etc/passwd": PASSWD, "data": platform.encode()})
    system, architecture = platform.split("/")
    return fake.add_image(
        "team/app",
        tag,
        list(small.blobs.values()),
        config={"os": system, "architecture": architecture, "config": CONFIG},
        diff_ids=small.diff_ids,
        layer_type=GZIP_LAYER,
    )


def parts(fake: FakeRegistry, digest: str) -> tuple[Any, Any, dict[str, tarfile.TarInfo], bytes]:
    """Manifest, config, members and index of the stub ``digest``."""
    manifest = json.loads(fake.manifests["team/stub", digest][0])
    config = json.loads(fake.blobs[manifest["config"]["digest"]])
    layer = gzip.decompress(fake.blobs[manifest["layers"][0]["digest"]])
    assert config["rootfs"]["diff_ids"] == [digest_of(layer)]
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        members = {one.name: one for one in archive}
        index = archive.extractfile(".clip/index.clip")
        passwd = archive.extractfile("etc/passwd")
        assert index is not None and passwd is not None and passwd.read() == PASSWD
        return manifest, config, members, index.read()


def test_publish(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    digest = hold(fake, "linux/amd64")
    done = publish.publish(settings, f"{fake.host}/team/app:1", f"{fake.host}/team/stub:1")
    assert done.digest == done.stubs[0].digest and done.stubs[0].source_digest == digest
    manifest, config, members, index = parts(fake, done.digest)
    assert manifest["annotations"] == {publish.STUB_OF: f"{fake.host}/team/app@{digest}"}
    assert (config["config"], config["architecture"]) == (CONFIG, "amd64")
    assert members["opt/bin/serve"].linkname == members["bin/sh"].linkname == "/.clip/explain"
    assert members[".clip/explain"].mode == 0o755
    assert all((one.uid, one.gid, one.mode & 0o022) in [(0, 0, 0), (0, 0, 0o022)]
               for one in members.values())  # fmt: skip
    (tmp_path / "index.clip").write_bytes(index)
    with ClipFile.open(str(tmp_path / "index.clip")) as clip:
        assert (clip.manifest_digest, clip.source) == (digest, f"{fake.host}/team/app")
    again = publish.publish(settings, f"{fake.host}/team/app:1", f"{fake.host}/team/stub:1")
    assert again.digest == done.digest


def test_every_platform(settings: Settings, fake: FakeRegistry) -> None:
    platforms = ["linux/amd64", "linux/arm64", "linux/s390x"]
    digests = [hold(fake, one) for one in platforms]
    rows: list[Any] = [
        (digest, {"os": "linux", "architecture": one.split("/")[1]})
        for digest, one in zip(digests, platforms, strict=True)
    ]
    rows.append((digests[0], {"os": "unknown", "architecture": "unknown"}))
    fake.add_index("team/app", "all", rows)
    source, target = f"{fake.host}/team/app:all", f"{fake.host}/team/stub:all"
    done = publish.publish(settings, source, target)
    listed = json.loads(fake.manifests["team/stub", "all"][0])["manifests"]
    assert [one["platform"]["architecture"] for one in listed] == ["amd64", "arm64", "s390x"]
    assert [one["digest"] for one in listed] == [one.digest for one in done.stubs]
    machines = []
    for one in done.stubs:
        _, config, members, _ = parts(fake, one.digest)
        machines.append((config["architecture"], ".clip/explain" in members))
    assert machines == [("amd64", True), ("arm64", True), ("s390x", False)]

    some = publish.publish(settings, source, target, wanted=["linux/arm64"])
    assert [one.platform for one in some.stubs] == ["linux/arm64"]
    with pytest.raises(NotFound, match="no such platform"):
        publish.publish(settings, source, target, wanted=["linux/riscv64"])


def test_targets_that_are_refused(settings: Settings, fake: FakeRegistry) -> None:
    hold(fake, "linux/amd64")
    source = f"{fake.host}/team/app:1"
    with pytest.raises(InvalidReference, match="take the place"):
        publish.publish(settings, source, source)
    with pytest.raises(InvalidReference, match="tag"):
        publish.publish(settings, source, f"{fake.host}/team/stub@sha256:{'1' * 64}")
    publish.publish(settings, source, f"{fake.host}/team/stub:1")
    with pytest.raises(InvalidReference, match="itself a stub"):
        publish.publish(settings, f"{fake.host}/team/stub:1", f"{fake.host}/team/stub:2")
    assert fake.manifests["team/app", "1"][1] == OCI_MANIFEST


@given(
    st.dictionaries(
        st.sampled_from(["Entrypoint", "Cmd", "Env", "WorkingDir", "User"]),
        st.none()
        | st.text(max_size=9)
        | st.lists(st.text(max_size=9) | st.integers(), max_size=3)
        | st.lists(st.sampled_from(["/bin/sh", "../../x", "PATH=", "PATH=/a", "/.clip", "/"])),
    )
)
def test_no_config_makes_a_layer_that_leaves_its_root(config: dict[str, object]) -> None:
    files: dict[str, bytes | str] = {".clip/index.clip": b"index", "etc/passwd": b""}
    for name in publish.entry_points(config):
        publish._link(files, name)
    with tarfile.open(fileobj=io.BytesIO(publish.make_layer(files))) as archive:
        names = archive.getnames()
        assert archive.extractfile(".clip/index.clip").read() == b"index"  # type: ignore[union-attr]  # a file
    assert len(names) == len(set(names))
    assert not any(name.startswith("/") or ".." in name.split("/") for name in names)
