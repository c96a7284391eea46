"""``clipctl verify --deep`` and what it names, against a fake registry."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from clip_runc.cli import verify
from clip_runc.config import Settings
from clip_runc.images.make import index_image
from clip_runc.images.rebuild import differences
from clip_runc.index.chunk_hash import BLAKE3, SHA256, hash_of
from clip_runc.index.clip_check import check_clip
from clip_runc.index.clip_diff import spacing
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.fake import FakeRegistry
from tests.unit.images.registry_images import add, local_windows, rewrite, stored_window, tar_of

NOISE = random.Random(4).randbytes(9 << 20)
LOWER = {"etc/passwd": b"root", "noise": NOISE}
UPPER = {"hello": b"hello world" * 100}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as found:
        yield found


@pytest.fixture
def reference(fake: FakeRegistry) -> str:
    return add(fake, tar_of(LOWER), tar_of(UPPER))


def index(settings: Settings, reference: str, path: Path, mib: int = 2) -> Path:
    index_image(settings, reference, str(path), checkpoint_mib=mib, store=False)
    return path


@pytest.mark.parametrize("mib", [1, 2, 3, 64])
def test_an_index_made_again_is_the_same_bytes(
    settings: Settings, fake: FakeRegistry, reference: str, tmp_path: Path, mib: int
) -> None:
    path = index(settings, reference, tmp_path / "a.clip", mib)
    count = len(fake.requests("GET", "/blobs/"))
    assert differences(settings, str(path)) == []
    assert len(fake.requests("GET", "/blobs/")) == count + 3, "nothing comes from the cache"
    with ClipFile.open(str(path)) as clip:
        assert spacing(clip) >= mib


def test_another_zstd_gives_other_bytes_and_the_same_index(
    settings: Settings, fake: FakeRegistry, tmp_path: Path
) -> None:
    reference = add(fake, tar_of({"hexadecimal": NOISE.hex().encode()}), tar_of(UPPER))
    path = index(settings, reference, tmp_path / "a.clip")
    before = path.read_bytes()
    with ClipFile.open(str(path)) as clip:
        content = clip.content_digest
        layers = []
        for number, layer in enumerate(clip.layers):
            chunks, windows = [], b""
            for place, chunk in enumerate(layer.chunks):
                plain = clip.window(number, place)
                frame = zstandard.compress(plain, 1) if plain else b""
                at = (len(windows), len(frame)) if frame else (0, 0)
                chunks.append(replace(chunk, window=at))
                windows += frame
            layers.append((replace(layer, chunks=tuple(chunks)), windows))
    assert any(windows for _, windows in layers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clip_runc.index.clipfile._EROFS_LEVEL", 1)
        rewrite(path, layers=layers)
    assert path.read_bytes() != before
    with ClipFile.open(str(path)) as clip:
        assert clip.content_digest == content
    assert differences(settings, str(path)) == []


def test_a_wrong_window_is_named(settings: Settings, reference: str, tmp_path: Path) -> None:
    path = index(settings, reference, tmp_path / "a.clip")
    with ClipFile.open(str(path)) as clip:
        layer, upper = (local_windows(one) for one in clip.layers)
    frame = zstandard.compress(b"another window")
    chunks = list(layer.chunks)
    chunks[1:] = [replace(chunk, window=(0, len(frame))) for chunk in chunks[1:]]
    rewrite(path, layers=[(replace(layer, chunks=tuple(chunks)), frame), (upper, b"")])
    found = differences(settings, str(path))
    assert found and all(line.endswith("has another window") for line in found)


def test_other_checkpoints_are_named(settings: Settings, reference: str, tmp_path: Path) -> None:
    path = index(settings, reference, tmp_path / "a.clip", 4)
    found = differences(settings, str(path), checkpoint_mib=1)
    assert any("layer 1" in line and "chunks, not" in line for line in found)


def test_an_index_cut_elsewhere_is_read_and_told(
    settings: Settings, reference: str, tmp_path: Path
) -> None:
    path = index(settings, reference, tmp_path / "a.clip")
    with ClipFile.open(str(path)) as clip:
        layer, upper = (local_windows(one) for one in clip.layers)
        assert not any(chunk.window[1] for chunk in layer.chunks), "of noise"
    first, second, *others = layer.chunks
    both = replace(
        first,
        raw_end=second.raw_end,
        comp_end=second.comp_end,
        hash=hash_of(BLAKE3, tar_of(LOWER)[: second.raw_end]),
    )
    rewrite(path, layers=[(replace(layer, chunks=(both, *others)), b""), (upper, b"")])
    with ClipFile.open(str(path)) as clip:
        check_clip(clip)
    found = differences(settings, str(path), checkpoint_mib=2)
    assert f"{len(others) + 1} chunks, not {len(others) + 2}" in found[0]
    assert "chunk 0 is at (0, " in found[1]
    assert len(found) == 2, "the tree is the same"


def test_a_lying_tree_is_named_by_path(
    settings: Settings, fake: FakeRegistry, reference: str, tmp_path: Path
) -> None:
    path = index(settings, reference, tmp_path / "a.clip")
    before = path.read_bytes()
    rewrite(path)
    assert path.read_bytes() == before
    other = add(fake, tar_of(LOWER), tar_of({**UPPER, "evil": b"x"}, 0o4755))
    made = index(settings, other, tmp_path / "b.clip")
    with ClipFile.open(str(made)) as clip:
        erofs = clip.erofs()
    rewrite(path, erofs=erofs)
    found = differences(settings, str(path))
    assert "/evil: not in the image" in found
    assert any(line.startswith("/hello: mode is ") for line in found)


def test_a_wrong_chunk_is_named(settings: Settings, reference: str, tmp_path: Path) -> None:
    path = index(settings, reference, tmp_path / "a.clip")
    with ClipFile.open(str(path)) as clip:
        layer = local_windows(clip.layers[0])
        windows = b"".join(stored_window(clip, chunk.window) for chunk in layer.chunks)
        upper = (local_windows(clip.layers[1]), b"")
    chunks = list(layer.chunks)
    assert len(chunks) > 2
    chunks[1] = replace(chunks[1], hash=hashlib.sha256(b"another").digest())
    rewrite(path, layers=[(replace(layer, chunks=tuple(chunks)), windows), upper])
    (line,) = differences(settings, str(path))
    assert line.startswith("layer 1 (sha256:") and line.endswith("chunk 1 has another hash")


def test_the_command(
    settings: Settings, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "load", lambda: settings)
    path = index(settings, reference, tmp_path / "a.clip")
    run = CliRunner().invoke(verify.command, ["--deep", str(path)], standalone_mode=False)
    assert run.return_value == 0, run.output
    assert "✓ made again from the registry, it is the same" in run.stdout
    run = CliRunner().invoke(verify.command, ["--deep", "--offline", str(path)])
    assert run.exit_code == 2


def test_a_wrong_name_of_the_hash_is_named(
    settings: Settings, reference: str, tmp_path: Path
) -> None:
    path = index(settings, reference, tmp_path / "a.clip")
    with ClipFile.open(str(path)) as clip:
        layer = replace(local_windows(clip.layers[0]), chunk_hash=SHA256)
        windows = b"".join(stored_window(clip, chunk.window) for chunk in layer.chunks)
        upper = (local_windows(clip.layers[1]), b"")
    rewrite(path, layers=[(layer, windows), upper])
    (line,) = differences(settings, str(path))
    assert line.endswith("chunk_hash is sha256, not blake3")
