"""An image whose layers carry tables of contents, indexed by these alone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from clip_runc.config import Settings
from clip_runc.errors import RegistryUnreachable
from clip_runc.images.make import IndexResult, index_image
from clip_runc.images.published import Tables, annotations_of
from clip_runc.images.rebuild import differences
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.erofs_read import ErofsImage
from clip_runc.index.inflate import inflate_chunk
from clip_runc.index.tree_diff import Tree, diff_trees
from clip_runc.registry.fake import FakeRegistry
from tests.unit.images import blobs
from tests.unit.index.published_layers import FLAVOURS, Published, digest, member, published

FILES = [
    member("etc/", kind=b"5", mode=0o755),
    member("etc/small", b"small\n", uid=1000, mtime=1_500_000_000),
    member("etc/large", bytes(range(256)) * 800, xattrs={"user.note": b"x"}),
    member("etc/link", kind=b"2", link="small"),
    member("etc/hard", kind=b"1", link="etc/small"),
    member("etc/empty"),
]
UPPER = [member("etc/.wh.large"), member("etc/other", b"other" * 3000)]
PLAIN = blobs.tar_of({"plain": b"plain" * 1000})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as found:
        yield found


def add(fake: FakeRegistry, layers: Sequence[Published]) -> str:
    """The image in the registry, with the annotations that its layers' writers gave."""
    name = fake.add_image(
        "team/app", "1", [one.blob for one in layers], diff_ids=[one.diff_id for one in layers]
    )
    data, kind = fake.manifests["team/app", name]
    manifest = json.loads(data)
    for row, one in zip(manifest["layers"], layers, strict=True):
        row |= {"annotations": one.annotations, "mediaType": one.media_type}
    return str(fake.reference("team/app", fake.add_manifest("team/app", "1", manifest, kind)))


def make(settings: Settings, reference: str, path: Path, *, tables: bool) -> IndexResult:
    return index_image(settings, reference, str(path), store=False, published=tables)


def plain() -> Published:
    return Published(gzip.compress(PLAIN), PLAIN, {}, "application/vnd.oci.image.layer.v1.tar+gzip")


def read(path: Path, layers: Sequence[Published], name: bytes) -> bytes:
    """A file of an index, out of the chunks that it says."""
    with ClipFile.open(str(path)) as clip:
        image = ErofsImage(clip.erofs())
        nid = image.resolve(name)
        data = b""
        for device, offset, length in image.extents(nid, 0, image.inode(nid).size):
            layer, blob = clip.layers[device - 1], layers[device - 1].blob
            raw = b"".join(
                inflate_chunk(
                    layer,
                    chunk,
                    blob[chunk.comp_start : chunk.comp_end],
                    clip.window(device - 1, number),
                )
                for number, chunk in enumerate(layer.chunks)
            )
            data += raw[offset : offset + length]
    return data


def changes(one: Path, two: Path) -> list[object]:
    """What of the trees differs, wherever their bytes lie."""
    with ClipFile.open(str(one)) as left, ClipFile.open(str(two)) as right:
        trees = [Tree(clip.erofs(), [x.diff_hex for x in clip.layers]) for clip in (left, right)]
        return list(diff_trees(*trees))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_same_tree_and_files_without_fetching_a_layer(
    settings: Settings, fake: FakeRegistry, tmp_path: Path, flavour: str
) -> None:
    layers = [published(flavour, FILES, chunk_size=50_000), published(flavour, UPPER)]
    reference = add(fake, layers)
    by_table, whole = tmp_path / "table.clip", tmp_path / "whole.clip"
    result = make(settings, reference, by_table, tables=True)
    assert not result.warnings and result.layers == 2
    for one in layers:
        (asked,) = fake.requests(on=digest(one.blob))
        assert "range" in {name.lower() for name in asked.headers}
    assert make(settings, reference, whole, tables=False).fetched == result.compressed
    assert changes(by_table, whole) == []
    for name, data in ((b"etc/small", b"small\n"), (b"etc/other", b"other" * 3000)):
        assert read(by_table, layers, name) == read(whole, layers, name) == data
    with ClipFile.open(str(by_table)) as clip:
        assert {layer.origin for layer in clip.layers} == {flavour.split(" of")[0]}
    assert differences(settings, str(by_table)) == []


def test_a_layer_without_a_table_or_with_a_wrong_one_is_read_whole(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    good = published("zstd:chunked", FILES)
    lying = published("estargz", UPPER)
    lying = replace(lying, annotations=dict.fromkeys(lying.annotations, digest(b"")))
    layers = [good, plain(), lying]
    reference = add(fake, layers)
    result = make(settings, reference, tmp_path / "x.clip", tables=True)
    assert [line.partition(" ")[2].partition(" ")[2] for line in result.warnings] == [
        "has no table of contents: it is read whole",
        "is read whole: the table of contents is not the one that the manifest names",
    ]
    with ClipFile.open(str(tmp_path / "x.clip")) as clip:
        assert [layer.origin for layer in clip.layers] == ["zstd:chunked", "", ""]
    assert read(tmp_path / "x.clip", layers, b"plain") == b"plain" * 1000
    assert differences(settings, str(tmp_path / "x.clip")) == []


def test_a_registry_that_breaks_down_at_the_table(settings: Settings, tmp_path: Path) -> None:
    class Broken:
        def read_range(
            self, digest: str, start: int, end: int, *, deadline: float | None = None
        ) -> bytes:
            raise RegistryUnreachable("no ranges today")

    layer = published("estargz", FILES)
    manifest = json.dumps({"layers": [{"annotations": layer.annotations}]}).encode()
    warnings: list[str] = []
    image = SimpleNamespace(manifest=manifest, manifest_digest=digest(manifest), registry=Broken())
    tables = Tables(image, 1 << 30, warnings.append)
    (blob,) = blobs.source_of((layer.stream, layer.blob, "+gzip")).layers
    assert tables.layer(0, blob, layer.diff_id) is None
    assert warnings == [f"layer {blob.digest} is read whole: no ranges today"]


def test_annotations_of_any_shape() -> None:
    rows = [{}, {"annotations": None}, {"annotations": {"a": 1, "b": "c"}}, {"annotations": ["a"]}]
    manifest = json.dumps({"layers": rows}).encode()
    assert annotations_of(manifest) == [{}, {}, {"b": "c"}, {}]
