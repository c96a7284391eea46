"""Indexes as artifacts beside their image: docker-registry, which has no referrers API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_runc.images.artifact import ARTIFACT_TYPE
from clip_runc.registry.client import Registry
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.reference import Reference
from tests.integration.busybox_images import CONTENT
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import MANIFEST, Image
from tests.integration.pushing import push


@pytest.fixture
def shared_ref(registry: DockerRegistry, busybox_image: Image, tmp_path: Path) -> str:
    """The busybox image in a repository that only this test pushes indexes to."""
    return push(busybox_image, registry.host, f"artifact/{tmp_path.name.strip('_')}", "1")


def test_push_and_pull(
    clip_with: Callable[..., ClipMachine], shared_ref: str, busybox_image: Image
) -> None:
    """What one machine pushed another pulls: the same bytes; pushing twice changes nothing."""
    maker, user = clip_with(), clip_with()
    index = maker.index(shared_ref)
    pushed = json.loads(maker.ctl("push", "--json", shared_ref, check=True).stdout)
    assert (pushed["subject"], pushed["new"], pushed["api"]) == (busybox_image.digest, True, False)
    again = json.loads(maker.ctl("push", "--json", shared_ref, check=True).stdout)
    assert (again["artifact"], again["new"]) == (pushed["artifact"], False)
    with Registry(Reference.parse(shared_ref)) as registry:
        listed = registry.referrers(busybox_image.digest, ARTIFACT_TYPE)
    assert [one.digest for one in listed] == [pushed["artifact"]]

    pulled = json.loads(user.ctl("pull", "--json", shared_ref, check=True).stdout)
    assert Path(pulled["path"]).read_bytes() == index.read_bytes()
    assert (pulled["digest"], pulled["candidates"]) == (busybox_image.digest, 1)
    done = user.ctl("cat", shared_ref, "/srv/data/a", check=True)
    assert done.stdout.encode() == CONTENT["a"]


def test_create_finds_it_where_trusted(
    clip_with: Callable[..., ClipMachine], shared_ref: str
) -> None:
    """An ordinary annotation of an engine, no index here: the one beside the image is used."""
    maker = clip_with()
    maker.index(shared_ref)
    maker.ctl("push", shared_ref, check=True)
    bundle = maker.bundle(shared_ref, "/bin/cat", "/srv/data/a")
    maker.edit(bundle, lambda spec: _engines_annotation(spec, shared_ref))

    trusting = clip_with()
    done = trusting.runc("run", "-b", bundle, "found")
    assert (done.returncode, done.stdout.encode()) == (0, CONTENT["a"]), done.stderr
    layers = list((trusting.state / "layer-indexes").glob("*"))
    assert layers == [], "nothing was indexed"

    wary = clip_with(trusted_registries=["registry.example/team"])
    done = wary.runc("run", "-b", bundle, "passed")
    assert done.returncode != 0, "the bundle itself has no root filesystem"
    assert not (wary.state / "indexes").exists()


def _engines_annotation(spec: dict[str, object], reference: str) -> None:
    spec["annotations"] = {"io.kubernetes.cri.image-name": reference}


def test_pull_where_nobody_pushed(clip: ClipMachine, plain_ref: str) -> None:
    done = clip.ctl("pull", plain_ref)
    assert done.returncode == 1
    assert "no index beside the image" in done.stderr
    assert f"clipctl index {plain_ref}" in done.stderr


def test_an_image_without_one_costs_requests_only_now_and_then(
    clip_with: Callable[..., ClipMachine], busybox_image: Image
) -> None:
    """An ordinary container of a trusted repository: its registry is asked once in five minutes."""
    with FakeRegistry() as fake:
        for blob in busybox_image.blobs:
            fake.add_blob(blob.path.read_bytes())
        fake.add_manifest("team/app", "1", busybox_image.manifest, MANIFEST)
        reference = f"{fake.host}/team/app:1"
        bundle = clip_with().bundle(reference, "/bin/true")
        clip = clip_with()
        clip.edit(bundle, lambda spec: _engines_annotation(spec, reference))
        asked = []
        for number in range(3):
            before = len(fake.seen)
            done = clip.runc("run", "-b", bundle, f"ordinary{number}")
            assert done.returncode != 0, "the bundle itself has no root filesystem"
            asked.append(len(fake.seen) - before)
        assert asked[0] > 0 and asked[1:] == [0, 0]
        clip.configure(pull_retry=0)
        clip.runc("run", "-b", bundle, "asks")
        assert len(fake.seen) > sum(asked)
