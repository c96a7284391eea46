"""The manifest: its objects belong together, its script is shell."""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from clip_runc.cli.setup import kubernetes
from clip_runc.cli.setup.containerd import HANDLER
from clip_runc.errors import ConfigError


def script(text: str) -> str:
    """The command of the init container."""
    found = re.search(r"^( +)- \|\n((?:\1  .*\n|\n)+)", text, re.MULTILINE)
    assert found is not None
    return textwrap.dedent(found[2])


def test_the_objects() -> None:
    text = kubernetes.manifest("host/node:2")
    assert re.findall(r"^kind: (\w+)$", text, re.MULTILINE) == ["RuntimeClass", "DaemonSet"]
    assert f"\nhandler: {HANDLER}\n" in text
    assert text.count("image: host/node:2\n") == 2
    assert kubernetes.IMAGE not in text
    subprocess.run(["sh", "-n"], input=script(text), text=True, check=True)


def test_the_image_that_the_containerfile_makes() -> None:
    text = (Path(__file__).parents[4] / "packaging/Containerfile").read_text()
    assert kubernetes.IMAGE in text


@pytest.mark.parametrize("image", ["", "a b", 'x"', "x\ny"])
def test_no_reference(image: str) -> None:
    with pytest.raises(ConfigError):
        kubernetes.manifest(image)
