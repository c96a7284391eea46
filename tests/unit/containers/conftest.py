from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.containers.key import key
from clip_runc.containers.state import State


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


@pytest.fixture
def state(settings: Settings) -> State:
    """A container ``c1``, whose directory exists."""
    return state_of(settings, "c1")


def state_of(settings: Settings, name: str) -> State:
    found = State(key("/run/runc", name))
    found.id, found.root, found.image = name, "/run/runc", "ab" * 32
    os.makedirs(f"{settings.container_dir}/{found.key}")
    return found
