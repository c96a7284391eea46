"""``clipctl index``, ``inspect``, ``ls``, ``cat`` and ``verify`` on images of a real registry."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.integration.busybox_images import CONTENT, EXPECTED, HIDDEN
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import Image


def test_index_is_the_same_bytes_each_time(
    clip: ClipMachine, busybox_ref: str, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.clip", tmp_path / "two.clip"
    clip.ctl("index", "--no-store", "-o", one, busybox_ref, check=True)
    clip.ctl("index", "--no-store", "-o", two, busybox_ref, check=True)
    assert one.read_bytes() == two.read_bytes()


def test_one_pass_moves_each_layer_once(
    clip: ClipMachine, busybox_ref: str, busybox_image: Image
) -> None:
    first = json.loads(clip.ctl("index", "--json", busybox_ref, check=True).stdout)
    layers = sum(layer.size for layer in busybox_image.layers)
    assert layers <= first["fetched"] <= layers * 1.01 + 4096
    second = json.loads(clip.ctl("index", "--json", busybox_ref, check=True).stdout)
    assert second["fetched"] < 4096, "a layer that was indexed once is not fetched again"


def test_inspect_names_layers_and_source(
    clip: ClipMachine, busybox_ref: str, busybox_image: Image
) -> None:
    seen = json.loads(clip.ctl("inspect", "--json", clip.index(busybox_ref), check=True).stdout)
    assert seen["digest"] == busybox_image.digest
    assert seen["source"] == busybox_ref.rpartition(":")[0]
    assert [one["digest"] for one in seen["layers"]] == [x.digest for x in busybox_image.layers]
    assert [one["diff_id"] for one in seen["layers"]] == [x.diff_id for x in busybox_image.layers]
    assert sum(seen["parts"].values()) == seen["size"] == clip.index(busybox_ref).stat().st_size
    assert seen["share"] == seen["size"] / sum(x.size for x in busybox_image.layers)
    assert seen["platform"].startswith("linux/")
    assert seen["prefetch"] == []
    people = clip.ctl("inspect", busybox_ref, check=True).stdout
    assert busybox_image.digest in people
    for word in (f"{seen['share']:.2%} of the layers", "windows ", "tree ", "no list", "linux/"):
        assert word in people


def test_ls_shows_the_flattened_tree(clip: ClipMachine, busybox_ref: str) -> None:
    index = clip.index(busybox_ref)
    listed = json.loads(clip.ctl("ls", "-R", "--json", index, check=True).stdout)
    by_path = {one["path"].strip("/"): one for one in listed}
    for path, (mode, uid, gid) in EXPECTED.items():
        found = by_path[path]
        assert (found["mode"], found["uid"], found["gid"]) == (stat.filemode(mode), uid, gid), path
    assert not set(HIDDEN) & set(by_path)
    assert by_path["bin"]["target"] == "usr/bin"
    assert by_path["srv/data/a"]["links"] == 2
    assert "srv/" + "n" * 200 in by_path


@pytest.mark.parametrize("path", ["srv/data/big", "srv/data/hard", "bin/../../srv/data/big"])
def test_cat_prints_a_file(clip: ClipMachine, busybox_ref: str, path: str) -> None:
    name = path.rpartition("/")[2].replace("hard", "a")
    done = clip.ctl("cat", clip.index(busybox_ref), f"/{path}", check=True)
    assert done.stdout.encode() == CONTENT[name]


def test_verify_ticks_what_the_seed_asks_for(clip: ClipMachine, debian_ref: str) -> None:
    done = clip.ctl("verify", clip.index(debian_ref))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("✓") for line in lines), done.stdout
    assert any("/bin -> usr/bin" in line for line in lines)
    assert any("/proc" in line for line in lines)
    assert any("layer" in line for line in lines)


def test_all_compressions_give_the_same_tree(
    clip: ClipMachine, debian_ref: str, debian_mixed_ref: str
) -> None:
    listed = [
        clip.ctl("ls", "-lR", clip.index(reference), check=True).stdout
        for reference in (debian_ref, debian_mixed_ref)
    ]
    assert listed[0] == listed[1]
    assert len(listed[0].splitlines()) > 5000


def test_verify_says_when_a_layer_is_gone(
    clip: ClipMachine, busybox_image: Image, scratch: Path
) -> None:
    from tests.integration.pushing import push

    daemon = DockerRegistry(clip.directory / "short-lived")
    try:
        index = clip.index(push(busybox_image, daemon.host, "short", "lived"))
    finally:
        daemon.stop()
    done = clip.ctl("verify", index)
    assert done.returncode == 1
    assert "✗" in done.stdout
    assert clip.ctl("verify", "--offline", index).returncode == 0
