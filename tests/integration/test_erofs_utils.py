"""What others make of our EROFS images: fsck.erofs and dump.erofs of newer Debian releases.

The kernel is in ``test_index_erofs_kernel`` and ``test_fidelity``.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from clip_runc.index.erofs_check import Stats, check_erofs
from clip_runc.index.erofs_read import ErofsImage
from clip_runc.index.erofs_write import write_erofs
from clip_runc.index.tar import TarScanner
from clip_runc.index.tree import flatten
from clip_runc.linux.mount import mount_erofs, unmount
from tests.integration import torture_image as torture
from tests.integration.conftest import CACHE
from tests.integration.erofs_utils import ErofsUtils, Unavailable, erofs_utils
from tests.integration.loop_disk import ext4
from tests.integration.prerequisites import in_ci, need
from tests.integration.whole_tree import differences, walk

# fsck.erofs loses zeros at the end of what it extracts, and capabilities by a later chown
NOT_EXTRACTED = re.compile(rb"sparse/.*/(hole|tail|many)")


class Written(NamedTuple):
    """The torture image as the kernel gets it: metadata, and a file for each layer."""

    meta: Path
    layers: list[Path]
    stats: Stats

    @property
    def devices(self) -> list[str]:
        return [f"--device={layer}" for layer in self.layers]


@pytest.fixture(scope="module")
def written(scratch: Path) -> Written:
    place = scratch / "erofs-utils"
    place.mkdir()
    entries, layers = [], []
    for number, stream in enumerate(torture.layers(files=3000, zeros=5 << 20)):
        scanner = TarScanner()
        layers.append(place / f"layer-{number:03}")
        with layers[-1].open("wb") as file:
            for piece in stream:
                scanner.feed(piece)
                file.write(piece)
        entries.append(scanner.close())
    sizes = [layer.stat().st_size for layer in layers]
    image = write_erofs(flatten(entries), sizes)
    (place / "meta").write_bytes(image)
    return Written(place / "meta", layers, check_erofs(image, sizes))


@pytest.fixture(scope="module", params=["trixie", "testing"])
def tools(request: pytest.FixtureRequest) -> ErofsUtils:
    need("root")
    try:
        return erofs_utils(CACHE, request.param)
    except Unavailable as error:
        reason = f"prerequisite erofs-utils of Debian {request.param}: {error}"
        pytest.fail(reason, pytrace=False) if in_ci() else pytest.skip(reason)


def checked(tools: ErofsUtils, program: str, *arguments: str | bytes | Path) -> str:
    """Run a program that must not complain; its output."""
    done = tools.run(program, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_fsck_finds_nothing(tools: ErofsUtils, written: Written) -> None:
    checked(tools, "fsck.erofs", written.meta)
    # with the layers it also reads every file
    checked(tools, "fsck.erofs", "--extract", *written.devices, written.meta)


def _paths(image: ErofsImage) -> Iterator[tuple[bytes, int]]:
    todo = [(b"", image.root)]
    while todo:
        path, nid = todo.pop()
        yield path or b"/", nid
        if image.inode(nid).mode >> 12 == 4:
            todo += [(path + b"/" + name, child) for _, name, child in image.entries(nid)]


def test_dump_counts_the_same(tools: ErofsUtils, written: Written) -> None:
    out = checked(tools, "dump.erofs", "-s", "-S", written.meta)
    counts = {name: int(n) for name, n in re.findall(r"^Filesystem (.*):\s*(\d+)", out, re.M)}
    assert counts["inode count"] == written.stats.inodes
    # it counts names
    image = ErofsImage(written.meta.read_bytes())
    kinds = Counter(image.inode(nid).mode >> 12 for _, nid in _paths(image))
    names = {4: "directory count", 8: "regular file count", 10: "symlink file count"}
    names |= {1: "FIFO file count", 2: "char dev count", 6: "block dev count"}
    assert {kind: counts[name] for kind, name in names.items()} == kinds
    assert counts["total file count"] == kinds.total()


def test_dump_describes_inodes_as_our_reader_does(tools: ErofsUtils, written: Written) -> None:
    image = ErofsImage(written.meta.read_bytes())
    paths = [(path, nid) for path, nid in _paths(image) if b"\n" not in path and len(path) < 3000]
    for path, nid in random.Random(1).sample(paths, 60):
        inode = image.inode(nid)
        out = checked(tools, "dump.erofs", b"--path=" + path, written.meta)
        numbers = dict(re.findall(r"(NID|Size|Links|Uid|Gid): (\d+)", out))
        assert {name: int(value) for name, value in numbers.items()} == {
            "NID": nid, "Size": inode.size, "Links": inode.nlink,
            "Uid": inode.uid, "Gid": inode.gid,
        }, path  # fmt: skip
        assert f"Access: {inode.mode & 0o777:04o}/" in out, path


def test_fsck_extracts_what_the_kernel_mounts(
    tools: ErofsUtils, written: Written, scratch: Path
) -> None:
    need("erofs")
    target = scratch / "erofs-utils/mount"
    target.mkdir(exist_ok=True)
    with ext4(scratch / "erofs-utils/disk", gib=1, inodes=20_000) as disk:
        mount_erofs(str(written.meta), [str(layer) for layer in written.layers], str(target))
        try:
            mounted = walk(target)
        finally:
            unmount(str(target))
        out = disk / "extracted"
        options = [f"--extract={out}", "--preserve", "--xattrs"]
        checked(tools, "fsck.erofs", *options, *written.devices, written.meta)
        found = list(differences(walk(out), mounted))
    (scratch / "erofs-utils/disk").rmdir()
    odd = {path for path, what, _, _ in found if what in ("size", "content")}
    assert all(NOT_EXTRACTED.fullmatch(path) for path in odd), odd
    others = [one for one in found if one[1] not in ("size", "content", "security.capability")]
    assert not others
    assert len(mounted) > 3500
