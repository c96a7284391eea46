"""Which specs a runtime is too old for, and how often it is asked for its version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.errors import BundleError
from clip_runc.runtime import spec as specs
from clip_runc.runtime import too_old

TIME: dict[str, Any] = {"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "time"}]}}
FLAGS: dict[str, Any] = {"linux": {"seccomp": {"flags": ["SECCOMP_FILTER_FLAG_LOG"]}}}
NEW: dict[str, Any] = {"ociVersion": "1.2.1"}
PLAIN: dict[str, Any] = {"ociVersion": "1.0.2-dev", "linux": {"namespaces": [{"type": "pid"}]}}


class Runtime:
    """A program that says a version, and counts how often."""

    def __init__(self, directory: Path, says: str, name: str = "runc") -> None:
        self.path = directory / name
        self.asked = directory / "asked"
        self.settings = Settings(run_dir=str(directory))
        self.says(says)

    def says(self, text: str) -> None:
        self.path.write_text(f"#!/bin/sh\necho x >> {self.asked}\necho '{text}'\n")
        self.path.chmod(0o755)

    def refuse(self, spec: dict[str, Any]) -> None:
        too_old.refuse(self.settings, str(self.path), spec)

    @property
    def times(self) -> int:
        return len(self.asked.read_text().split()) if self.asked.exists() else 0


@pytest.mark.parametrize(
    ("name", "says", "spec", "words"),
    [
        ("runc", "runc version 1.1.5+ds1", TIME, "a time namespace, which runc 1.1.5"),
        ("runc", "runc version 1.1.15", FLAGS, "linux.seccomp.flags, which runc 1.1.15"),
        ("crun", "crun version 1.8.1", NEW, "ociVersion 1.2.1, which crun 1.8.1"),
        ("crun", "crun version 1.14.1", NEW, "ociVersion 1.2.1, which crun 1.14.1"),
    ],
)
def test_what_is_told(
    tmp_path: Path, name: str, says: str, spec: dict[str, Any], words: str
) -> None:
    """What is missing and what would help; asked once."""
    runtime = Runtime(tmp_path, says, name)
    for _ in range(3):
        with pytest.raises(BundleError, match=words) as raised:
            runtime.refuse(spec)
        assert f"{name} 1." in raised.value.hint and "or newer does" in raised.value.hint
    assert runtime.times == 1


@pytest.mark.parametrize(
    ("name", "says", "spec"),
    [
        ("runc", "runc version 1.3.6", TIME),
        ("runc", "runc version 1.2.0-rc.1", TIME),
        ("runc", "nonsense", TIME),
        ("runc", "", FLAGS),
        ("crun", "crun version 1.14.3", NEW),
        ("crun", "crun version 1.8.1", TIME),
        ("youki", "youki version 0.1.0", TIME),
    ],
)
def test_what_passes(tmp_path: Path, name: str, says: str, spec: dict[str, Any]) -> None:
    """New enough, or nothing that we know of: the runtime is the judge."""
    Runtime(tmp_path, says, name).refuse(spec)


def test_an_ordinary_spec_asks_nobody(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path, "runc version 1.1.5")
    runtime.refuse(PLAIN)
    assert runtime.times == 0
    assert not specs.asks_for_more(PLAIN) and not specs.asks_for_more({"linux": None})
    assert all(map(specs.asks_for_more, (TIME, FLAGS, NEW)))


def test_a_runtime_that_was_replaced_is_asked_again(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path, "runc version 1.1.5")
    with pytest.raises(BundleError):
        runtime.refuse(TIME)
    runtime.path.unlink()
    runtime.says("runc version 1.3.0 (replaced)")
    runtime.refuse(TIME)
    assert runtime.times == 2


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1.1.5+ds1", (1, 1, 5)),
        ("1.2.0-rc.1", (1, 2, 0)),
        ("1.8", (1, 8)),
        ("", ()),
        ("x", ()),
        ("1.x.3", (1,)),
        ("1.0.2-dev", (1, 0, 2)),
    ],
)
def test_versions(text: str, numbers: tuple[int, ...]) -> None:
    assert too_old.parse(text) == numbers
