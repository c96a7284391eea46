"""What the documents have a newcomer type, typed: blocks that need nothing but clip-runc."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.integration.clip_machine import REPOSITORY, ClipMachine

IMAGE = "registry.example/team/app:1.0"


def section(name: str, heading: str) -> str:
    """The ``sh`` blocks under a heading of a document, one script."""
    text = (REPOSITORY / "docs" / name).read_text()
    (found,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return "".join(re.findall(r"^```sh\n(.*?)^```", found, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(
    ("name", "heading", "said"),
    [
        ("tutorial.md", "By hand", ["hello", "clip_runc_up 1"]),
        ("beta9.md", "To check, step by step", ["✓ /bin -> usr/bin", "started"]),
    ],
)
def test_blocks_do_what_they_say(
    clip: ClipMachine, debian_ref: str, tmp_path: Path, name: str, heading: str, said: list[str]
) -> None:
    script = section(name, heading)
    assert IMAGE in script
    clipctl = clip.bin / "clipctl"
    if not clipctl.exists():
        clipctl.write_text(f'#!/bin/sh\nexec {sys.executable} -m clip_runc.cli.main "$@"\n')
        clipctl.chmod(0o755)
    script = script.replace(IMAGE, debian_ref)
    script = script.replace("clip-runc run", f"clip-runc --root {clip.root} run")
    path = f"{clip.bin}:{os.environ['PATH']}"
    done = clip.call(["sh", "-exc", script], cwd=tmp_path, environ={"PATH": path}, seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for text in said:
        assert text in done.stdout, done.stdout
