"""``clipctl report``: a real start as text, as JSON, and as a page that a browser draws."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.integration.clip_machine import ClipMachine
from tests.integration.prerequisites import need

# what waterfall_html's style sheet paints phases, fetches and waits with, where light is preferred
COLOURS = {"phase": (0x6B, 0x5B, 0xD2), "fetch": (0x2F, 0x7F, 0xD1), "wait": (0xD9, 0x82, 0x2B)}


@pytest.fixture
def started(clip_with: Callable[..., ClipMachine], debian_ref: str) -> ClipMachine:
    """A container has run, and its image is still attached."""
    machine = clip_with(image_linger=300)
    bundle = machine.bundle(debian_ref, "/bin/sh", "-c", "cat /usr/bin/* > /dev/null")
    machine.runc("run", "--bundle", bundle, "r1", check=True)
    return machine


def test_a_start_as_text_and_json(started: ClipMachine) -> None:
    found = json.loads(started.ctl("report", "r1", "--json", check=True).stdout)
    assert [phase["name"] for phase in found["phases"]] == ["resolve", "mount", "rewrite"]
    assert found["seen"] and found["mode"] in ("erofs", "loop", "tree")
    assert found["waits"] and all(one["good"] for one in found["waits"])
    after = sum(phase["seconds"] for phase in found["phases"])
    assert all(after - 0.2 <= one["start"] <= 60 for one in found["waits"])
    assert any(one["path"].startswith("/usr/bin/") for one in found["waits"])
    assert found["fetched"] == sum(one["length"] for one in found["fetches"])
    assert 0 < found["wanted"] <= sum(layer["compressed"] for layer in found["layers"])
    text = started.ctl("report", "r1", check=True).stdout
    assert f"{len(found['waits'])} reads waited" in text and "layer 0 fetches" in text

    started.ctl("stop", check=True)
    text = started.ctl("report", "r1", check=True).stdout
    assert "mount" in text and "what was read is not known" in text
    done = started.ctl("report", "never")
    assert done.returncode == 1 and "no start of a container of that id" in done.stderr


def test_a_browser_draws_it(started: ClipMachine) -> None:
    need("chromium")
    page, picture = started.directory / "report.html", started.directory / "report.png"
    started.ctl("report", "r1", "--html", page, check=True)
    _chromium(started.directory, f"--screenshot={picture}", "--window-size=1200,1000", page)
    with Image.open(picture) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert set(COLOURS.values()) <= colours
    # what the browser made of it: every bar is there, and nothing had to be mended
    dom = _chromium(started.directory, "--dump-dom", page)
    text = page.read_text()
    assert dom.count("<rect ") == text.count("<rect ") > 10
    assert dom.count("</tr>") == text.count("</tr>")


def _chromium(home: Path, *arguments: str | Path) -> str:
    """Without a sandbox, which it has not as root; the page is ours."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--disable-dev-shm-usage", "--disable-background-networking",
             f"--user-data-dir={home}/chromium"]  # fmt: skip
    done = subprocess.run(
        ["chromium", *flags, *(f"file://{one}" if isinstance(one, Path) else one
                               for one in arguments)],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout
