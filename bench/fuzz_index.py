"""The nightly fuzz of what reads an image: index files, layers, tar streams.

One libFuzzer process a target (atheris does not return), each with a share of the time.  The
checksums of an index are mended after a mutation, or no mutation would get past them.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SECONDS = 600
TARGETS = ("clip", "erofs", "layer", "tar")
MEMORY_MB = 1024
ONE_INPUT_SECONDS = 20


def seeds() -> dict[str, list[bytes]]:
    """What mutation starts from, by target."""
    from clip_runc.index.clipfile import ClipFile
    from tests.unit.images.small_clip import FILES, SmallImage, tar_of

    with tempfile.TemporaryDirectory() as place:
        path = SmallImage(FILES, {"more": b"x" * 5000}).write(Path(place) / "a.clip")
        index = path.read_bytes()
        with ClipFile.open(str(path)) as clip:
            erofs = clip.erofs()
    tar = tar_of(FILES)
    import zstandard

    blobs = [tar, gzip.compress(tar, mtime=0), zstandard.compress(tar)]
    return {"clip": [index], "erofs": [erofs], "layer": blobs, "tar": [tar]}


def mended(data: bytes) -> bytes:
    """The same file with the checksums that it should have, where it has a section table."""
    from clip_runc.index import clip_format as fmt

    start, size = 16, 64
    rows = (fmt.TABLE_SIZE - 32 - start) // size
    if len(data) < fmt.TABLE_SIZE:
        return data
    out = bytearray(data)
    for row in range(rows):
        at = start + row * size
        offset = int.from_bytes(out[at + 8 : at + 16], "little")
        length = int.from_bytes(out[at + 16 : at + 24], "little")
        body = bytes(out[offset : offset + length])
        out[at + 32 : at + 64] = hashlib.sha256(body).digest()
    end = fmt.TABLE_SIZE - 32
    out[end : fmt.TABLE_SIZE] = hashlib.sha256(bytes(out[:end])).digest()
    return bytes(out)


def clip_target() -> Callable[[bytes], None]:
    """Open, check, and read a mended index as commands do."""
    from clip_runc.errors import ClipError
    from clip_runc.index.clip_check import check_clip
    from clip_runc.index.clipfile import ClipFile
    from clip_runc.index.tree_diff import Tree, diff_trees

    def one(data: bytes) -> None:
        descriptor = os.memfd_create("fuzz")
        try:
            os.write(descriptor, mended(data))
            with ClipFile.open(descriptor) as clip:
                check_clip(clip)
                tree = Tree(clip.erofs(), [layer.diff_id for layer in clip.layers])
                assert not list(diff_trees(tree, tree, strict=True))
        except ClipError:
            return
        finally:
            os.close(descriptor)

    return one


def erofs_target() -> Callable[[bytes], None]:
    """Check an EROFS image, and walk what passes."""
    from clip_runc.errors import ClipError
    from clip_runc.index.erofs_check import check_erofs
    from clip_runc.index.tree_diff import Tree, diff_trees

    def one(data: bytes) -> None:
        try:
            check_erofs(data, [1 << 20, 1 << 20])
        except ClipError:
            return
        # what passes the check must be readable without an error
        tree = Tree(data, ["one", "two"])
        assert not list(diff_trees(tree, tree, strict=True))

    return one


def layer_target() -> Callable[[bytes], None]:
    """Index a layer of these bytes, as if its digests were right."""
    from types import SimpleNamespace

    from clip_runc.errors import ClipError
    from clip_runc.images.layer_pipeline import LayerRequest, index_layer

    def one(data: bytes) -> None:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
        blob = SimpleNamespace(digest=digest, size=len(data), media_type=media_type)
        request = LayerRequest(blob, digest, checkpoint_mib=1, size_limit=64 << 20)
        try:
            index_layer(request, lambda: iter([data]), lambda text: None)
        except ClipError:
            return

    return one


def tar_target() -> Callable[[bytes], None]:
    """Scan, flatten, write an EROFS image and check that."""
    from clip_runc.errors import ClipError
    from clip_runc.index.erofs_check import check_erofs
    from clip_runc.index.erofs_write import write_erofs
    from clip_runc.index.tar import TarScanner
    from clip_runc.index.tree import flatten

    def one(data: bytes) -> None:
        scanner = TarScanner()
        try:
            scanner.feed(data)
            image = write_erofs(flatten([scanner.close()]), [len(data)], ["00" * 32])
        except ClipError:
            return
        check_erofs(image, [len(data)])  # what we write must be sound, whatever came in

    return one


TARGET_MAKERS = {
    "clip": clip_target,
    "erofs": erofs_target,
    "layer": layer_target,
    "tar": tar_target,
}


def fuzz(target: str, seconds: int, corpus: Path) -> None:
    """Run one target; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["clip_runc"]):
        one = TARGET_MAKERS[target]()
    for number, seed in enumerate(seeds()[target]):
        (corpus / f"seed{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-timeout={ONE_INPUT_SECONDS}",
        "-max_len=65536",
        f"-artifact_prefix={Path.cwd()}/fuzz-{target}-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def main() -> None:
    arguments = sys.argv[1:]
    seconds = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else SECONDS
    if arguments[:1] == ["--one"]:
        fuzz(arguments[1], int(arguments[2]), Path(arguments[3]))
        return
    targets = arguments or list(TARGETS)
    failed = []
    for target in targets:
        with tempfile.TemporaryDirectory(prefix="clip-fuzz-") as corpus:
            share = str(max(1, seconds // len(targets)))
            command = [sys.executable, __file__, "--one", target, share, corpus]
            if subprocess.run(command, check=False).returncode:
                failed.append(target)
    print(f"fuzz: {'failed: ' + ', '.join(failed) if failed else 'nothing but clear errors'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
