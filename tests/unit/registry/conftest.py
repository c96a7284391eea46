"""Fixtures of the registry tests: a fake registry, short waits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator

import pytest

from clip_runc.registry import retry
from clip_runc.registry.client import Registry
from clip_runc.registry.fake import FakeRegistry

DATA = random.Random(7).randbytes(3 << 20)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.002)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A fake registry with ``team/app:1.0``, whose one layer is ``DATA``."""
    with FakeRegistry() as registry:
        registry.add_image("team/app", "1.0", [DATA])
        yield registry


@pytest.fixture
def connect() -> Iterator[Callable[..., Registry]]:
    """Make clients of ``team/app:1.0`` at a fake; closed at the end."""
    made: list[Registry] = []

    def make(fake: FakeRegistry, **options: object) -> Registry:
        options.setdefault("timeout", 5.0)
        registry = Registry(fake.reference("team/app", "1.0"), **options)  # type: ignore[arg-type]
        made.append(registry)
        return registry

    yield make
    for registry in made:
        registry.close()
