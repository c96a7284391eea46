from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.errors import ClipError
from clip_runc.images import artifact
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.referrers import Referrer
from tests.unit.images.artifacts import hold, image_at
from tests.unit.images.small_clip import FILES, SmallImage


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry(referrers=True) as registry:
        yield registry


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


def test_push_twice(settings: Settings, fake: FakeRegistry, tmp_path: Path) -> None:
    small = SmallImage(FILES)
    reference = hold(fake, small)
    path = small.write(tmp_path / "small.clip")
    first = artifact.push_index(settings, image_at(settings, reference), str(path))
    assert (first.new, first.api, first.subject) == (True, True, small.manifest_digest)
    again = artifact.push_index(settings, image_at(settings, reference), str(path))
    assert (again.new, again.artifact) == (False, first.artifact)


def test_push_of_an_index_of_another_image(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    reference = hold(fake, SmallImage(FILES))
    other = SmallImage({"a": b"b"}).write(tmp_path / "other.clip")
    with pytest.raises(ClipError, match="is an index of"):
        artifact.push_index(settings, image_at(settings, reference), str(other))
    assert fake.requests("POST") == fake.requests("PUT") == []


def test_the_rule() -> None:
    def one(number: int, **said: str) -> Referrer:
        names = {"created": "org.opencontainers.image.created"}
        values = {names.get(k, f"dev.clip-runc.{k}"): v for k, v in said.items()}
        return Referrer(f"sha256:{number:064}", 1, artifact.ARTIFACT_TYPE, values)

    listed = [
        one(1, created="2024-01-01T00:00:00Z"),
        one(2, created="2025-01-01T00:00:00Z"),
        one(3, created="2020-01-01T00:00:00Z", prefetch="true"),
        one(4, format="2", prefetch="true"),
        one(5, platform="linux/s390x", prefetch="true"),
        one(6, platform="linux/amd64", format="1", created="2025-01-01T00:00:00Z"),
        one(7),
    ]
    order = [int(x.digest[7:]) for x in artifact.rank(reversed(listed), "linux/amd64")]
    assert order == [3, 2, 6, 1, 7]
