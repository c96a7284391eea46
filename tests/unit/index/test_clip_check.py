import gzip
import io
import json
import os
from dataclasses import replace

import pytest

from clip_runc.errors import IndexFormatError
from clip_runc.images.build import build_index
from clip_runc.index import estargz
from clip_runc.index.clip_check import check_clip
from clip_runc.index.clipfile import ClipFile, write_clip
from clip_runc.index.model import ESTARGZ
from clip_runc.index.prefetch import PrefetchList, Range
from tests.unit.images import blobs


@pytest.fixture(scope="module")
def parts():
    """The arguments of ``write_clip`` for a sound index."""
    tar = blobs.mixed_tar(6_000_000)
    source = blobs.source_of((tar, gzip.compress(tar, 1), "+gzip"))
    out = io.BytesIO()
    build_index(source, out, checkpoint_mib=1)
    with opened(out.getvalue()) as clip:
        section = clip._sections[b"WIND"]
        windows = out.getvalue()[section.offset : section.offset + section.length]
        return {
            "manifest": clip.manifest,
            "config": clip.config,
            "platform": clip.platform,
            "source": clip.source,
            "layers": [(clip.layers[0], windows)],
            "erofs": clip.erofs(),
        }


def opened(data: bytes) -> ClipFile:
    descriptor = os.memfd_create("clip")
    os.write(descriptor, data)
    clip = ClipFile.open(descriptor)
    os.close(descriptor)
    return clip


def check(parts, **changes):
    out = io.BytesIO()
    write_clip(out, **{**parts, **changes})
    with opened(out.getvalue()) as clip:
        return check_clip(clip)


def test_a_sound_index(parts):
    assert check(parts).inodes == 15
    assert any(chunk.window[1] for chunk in parts["layers"][0][0].chunks)


def edited(text: bytes, **changes) -> bytes:
    return json.dumps({**json.loads(text), **changes}).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda p: {"manifest": b"no JSON"},
        lambda p: {"manifest": b"[" * 100_000},
        lambda p: {"manifest": b"[]"},
        lambda p: {"manifest": edited(p["manifest"], layers=[])},
        lambda p: {"manifest": edited(p["manifest"], layers=7)},
        lambda p: {"manifest": edited(p["manifest"], config={"digest": "sha256:0"})},
        lambda p: {"config": p["config"] + b" "},
        lambda p: {"layers": p["layers"] * 2},
        lambda p: {"layers": []},
        lambda p: {"layers": [(p["layers"][0][0], bytes(len(p["layers"][0][1])))]},
        lambda p: {"erofs": b""},
        lambda p: {"erofs": p["erofs"][:-4096]},
        lambda p: {"erofs": bytes(len(p["erofs"]))},
        lambda p: {"prefetch": [PrefetchList(("sh",), (Range(0, 0, 1000),))]},
    ],
)
def test_parts_that_do_not_agree(parts, change):
    with pytest.raises(IndexFormatError):
        check(parts, **change(parts))


def test_a_config_of_another_image(parts):
    config = edited(parts["config"], rootfs={"diff_ids": ["sha256:" + "0" * 64]})
    manifest = edited(parts["manifest"], config={"digest": blobs.sha(config)})
    with pytest.raises(IndexFormatError, match="diff_ids"):
        check(parts, config=config, manifest=manifest)


def test_a_layer_known_by_a_table_is_bound_to_the_one_that_the_manifest_names(parts):
    layer, windows = parts["layers"][0]
    toc = "sha256:" + "7" * 64

    def described(**annotations: str):
        rows = [
            {**row, "annotations": annotations} for row in json.loads(parts["manifest"])["layers"]
        ]
        return {
            "manifest": edited(parts["manifest"], layers=rows),
            "layers": [(replace(layer, origin=ESTARGZ, toc=toc), windows)],
        }

    check(parts, **described(**{estargz.ANNOTATION: toc}))
    for other in ({}, {estargz.ANNOTATION: "sha256:" + "8" * 64}, {estargz.ANNOTATION: "x"}):
        with pytest.raises(IndexFormatError, match="table of another image"):
            check(parts, **described(**other))
    with pytest.raises(IndexFormatError, match="no table of contents that we know"):
        check(parts, layers=[(replace(layer, origin="stargz", toc=toc), windows)])
    with pytest.raises(IndexFormatError, match="no table of contents that we know"):
        check(parts, layers=[(replace(layer, origin=ESTARGZ, toc="sha256:7"), windows)])
