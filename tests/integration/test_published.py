"""Images that carry others' tables of contents: indexed by these alone, the same in every way.

Layers are written by the tests' own small writers, as the real tools do it; ``bench/published``
does the same with images that the real tools made.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from clip_runc import OverlayMounter
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.client import Registry
from clip_runc.registry.image import OCI_CONFIG, OCI_MANIFEST
from clip_runc.registry.reference import Reference
from tests.integration.busybox_images import SETTINGS, base_layer, middle_layer, top_layer
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import LAYER, architecture
from tests.integration.prerequisites import need
from tests.integration.whole_tree import Tree, differences, walk
from tests.unit.index.published_layers import FLAVOURS, Member, Published, digest, published
from tests.unit.index.ztoc_writer import ztoc

CHUNK = 100_000
"""Small files are one chunk, busybox and the file of a MiB several."""


def members(stream: bytes) -> list[Member]:
    found = []
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            xattrs = {
                name.removeprefix("SCHILY.xattr."): value.encode()
                for name, value in info.pax_headers.items()
                if name.startswith("SCHILY.xattr.")
            }
            found.append(Member(info, file.read() if file else b"", xattrs))
    return found


def streams() -> tuple[bytes, ...]:
    need("busybox")
    return base_layer(), middle_layer(), top_layer()


def push(host: str, repository: str, layers: Sequence[Published]) -> str:
    """The image with its annotations; the reference."""
    reference = f"{host}/{repository}:latest"
    config = {
        "architecture": architecture(),
        "os": "linux",
        "config": SETTINGS,
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
    }
    with Registry(Reference.parse(reference)) as registry:
        text = json.dumps(config).encode()
        rows = []
        for one, kind in [(text, OCI_CONFIG), *((x.blob, x.media_type) for x in layers)]:
            registry.push_blob(one)
            rows.append({"mediaType": kind, "digest": digest(one), "size": len(one)})
        for row, layer in zip(rows[1:], layers, strict=True):
            row["annotations"] = layer.annotations
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
        manifest |= {"config": rows[0], "layers": rows[1:]}
        registry.push_manifest(json.dumps(manifest).encode(), OCI_MANIFEST)
    return reference


def push_soci(clip: ClipMachine, reference: str, layers: Sequence[Published], index: Path) -> None:
    """A SOCI index of version 1 beside the image, which ``index`` is a full index of."""
    with Registry(Reference.parse(reference)) as registry, ClipFile.open(str(index)) as found:
        rows = []
        for number, (layer, one) in enumerate(zip(found.layers, layers, strict=True)):
            windows = [found.window(number, chunk) for chunk in range(len(layer.chunks))]
            data = ztoc(one.stream, one.blob, layer, windows.__getitem__)
            registry.push_blob(data)
            about = {"com.amazon.soci.image-layer-digest": layer.digest}
            row = {"mediaType": "application/octet-stream", "digest": digest(data)}
            rows.append(row | {"size": len(data), "annotations": about})
        registry.push_blob(b"{}")
        subject = {"mediaType": OCI_MANIFEST, "digest": found.manifest_digest}
        kind = "application/vnd.amazon.soci.index.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": kind,
            "config": {"mediaType": kind, "digest": digest(b"{}"), "size": 2},
            "layers": rows,
            "subject": subject | {"size": len(found.manifest)},
        }
        registry.attach(json.dumps(manifest).encode(), found.manifest_digest)


def index(clip: ClipMachine, reference: str, how: str) -> tuple[Path, dict[str, object]]:
    path = clip.directory / f"index{how}.clip"
    done = clip.ctl("index", how, "--json", "--no-store", "-o", path, reference, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return path, result


def tree(clip: ClipMachine, index: Path) -> Tree:
    with OverlayMounter(settings=clip.settings).mount(index) as mount:
        return walk(mount.rootfs_path)


def plain(stream: bytes) -> Published:
    return Published(gzip.compress(stream, mtime=0), stream, {}, f"{LAYER}+gzip")


@pytest.mark.parametrize("flavour", [*FLAVOURS, "eStargz of large members", "SOCI"])
def test_the_same_tree_and_bytes_as_the_full_index(
    clip: ClipMachine, registry: DockerRegistry, flavour: str
) -> None:
    least = 200_000 if flavour == "eStargz of large members" else 0
    made = flavour if flavour in FLAVOURS else "estargz"
    layers = [
        plain(stream)
        if flavour == "SOCI"
        else published(made, members(stream), chunk_size=CHUNK, least=least)
        for stream in streams()
    ]
    reference = push(
        registry.host, "published/" + "".join(filter(str.isalnum, flavour.lower())), layers
    )
    full, whole = index(clip, reference, "--full")
    if flavour == "SOCI":
        push_soci(clip, reference, layers, full)
    shutil.rmtree(clip.state)  # what was learnt of the layers
    by_table, result = index(clip, reference, "--published")
    assert result["warnings"] == [] and whole["fetched"] == whole["compressed"]
    assert int(str(result["fetched"])) < int(str(result["compressed"])) / 2
    expected, seen = tree(clip, full), tree(clip, by_table)
    assert len(expected) > 80 and not list(differences(seen, expected))
    shown = json.loads(clip.ctl("inspect", "--json", by_table, check=True).stdout)
    origin = "ztoc" if flavour == "SOCI" else made.split(" of")[0]
    assert {layer["from"] for layer in shown["layers"]} == {origin}
    clip.ctl("verify", "--deep", by_table, check=True)


def test_a_container_from_tables_alone(clip: ClipMachine, registry: DockerRegistry) -> None:
    layers = [published("estargz", members(stream), chunk_size=CHUNK) for stream in streams()]
    reference = push(registry.host, "published/run", layers)
    done = clip.ctl("index", "--published", "--json", reference, check=True)
    assert json.loads(done.stdout)["warnings"] == []
    environ = {"PATH": f"{clip.bin}:/usr/sbin:/usr/bin:/sbin:/bin"}
    command = "cat /srv/attributed; ls /srv/data; md5sum < /srv/data/big"
    ran = clip.ctl("run", "--rm", "-u", "0", reference, command, check=True, environ=environ)
    assert ran.stdout.split()[:4] == ["x", "a", "big", "hard"]
    status = clip.status()
    assert 0 < status["fetched"] < sum(len(layer.blob) for layer in layers)


def test_a_lying_blob_is_an_error_and_not_wrong_bytes(
    clip: ClipMachine, registry: DockerRegistry
) -> None:
    good = published("estargz", [*members(streams()[0])], chunk_size=CHUNK)
    offset = good.blob.index(b"\x1f\x8b\x08", 5000)
    wrong = bytearray(good.blob)
    wrong[offset + 200] ^= 1  # in the data of a file, busybox; the table is as it was
    layer = Published(bytes(wrong), good.stream, good.annotations, good.media_type)
    reference = push(registry.host, "published/wrong", [layer])
    path, result = index(clip, reference, "--published")
    assert result["warnings"] == []
    with OverlayMounter(settings=clip.settings).mount(path) as mount:
        root = Path(mount.rootfs_path)
        assert (root / "srv/data/a").read_bytes() == b"one\n"
        with pytest.raises(OSError, match="Input/output"):
            (root / "usr/bin/busybox").read_bytes()
