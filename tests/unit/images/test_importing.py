"""From a file of the Go library to an index, with the fake registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_runc.config import Settings
from clip_runc.errors import IndexFormatError
from clip_runc.images.importing import import_clip
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.image import OCI_LAYER_GZIP
from tests.unit.images.go_clips import go_clip, oci_info, wrapped
from tests.unit.images.small_clip import SmallImage


def old_file(path: Path, host: str, about: dict[str, str], layers: list[str]) -> str:
    path.write_bytes(go_clip(wrapped("oci", oci_info(host, "team/app", "1", layers, about))))
    return str(path)


def test_by_tag_and_by_digest(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))
    new = str(tmp_path / "new.clip")
    with FakeRegistry() as fake:
        small = SmallImage({"etc": None, "etc/motd": b"hello\n"})
        blobs = list(small.blobs.values())
        digest = fake.add_image(
            "team/app", "1", blobs, diff_ids=small.diff_ids, layer_type=OCI_LAYER_GZIP
        )
        path = old_file(tmp_path / "old.clip", fake.host, {"Os": "linux"}, [digest])
        made = import_clip(settings, path, new, store=False)
        assert (made.reference, made.digest) == (f"{fake.host}/team/app:1", digest)
        assert ["other layers by now" in text for text in made.warnings] == [True]

        with ClipFile.open(new) as clip:
            layers = [layer.digest for layer in clip.layers]
        about = {"Digest": digest, "Os": "linux", "Architecture": "amd64"}
        path = old_file(tmp_path / "old.clip", fake.host, about, layers)
        made = import_clip(settings, path, new, store=False)
        assert made.reference == f"{fake.host}/team/app@{digest}"
        assert (made.digest, made.warnings) == (digest, ())


def test_what_is_no_file_of_the_go_library(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))
    path = tmp_path / "x.clip"
    path.write_bytes(b"CLIPIDX\0 and so on")
    with pytest.raises(IndexFormatError, match=r"x\.clip: an index already"):
        import_clip(settings, str(path), store=False, output=str(tmp_path / "y"))
    path.write_bytes(b"neither")
    with pytest.raises(IndexFormatError, match=r"x\.clip: not a \.clip file of the Go library"):
        import_clip(settings, str(path), store=False, output=str(tmp_path / "y"))
