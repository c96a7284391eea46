"""Images of ours under the kernel's EROFS: what GNU tar extracts is what is mounted."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip_runc.errors import IndexFormatError, MountFailed
from clip_runc.index.erofs_check import check_erofs
from clip_runc.index.erofs_read import ErofsImage
from clip_runc.index.erofs_write import write_erofs
from clip_runc.index.model import Entry
from clip_runc.index.tar import TarScanner
from clip_runc.index.tree import flatten
from clip_runc.linux.mount import mount_erofs, unmount
from tests.integration.prerequisites import need

Mount = Callable[..., Path]


@pytest.fixture
def place(scratch: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of this test; what is mounted in it is unmounted at the end."""
    path = scratch / f"erofs-{abs(hash(request.node.name)):x}"
    path.mkdir()
    yield path
    for target in path.glob("mount*"):
        unmount(str(target))


@pytest.fixture
def mount(place: Path) -> Mount:
    """Index tar files as the layers of an image and mount it."""

    def make(*layers: Path) -> Path:
        entries = []
        for layer in layers:
            scanner = TarScanner()
            with layer.open("rb") as file:
                while data := file.read(3_000_001):
                    scanner.feed(data)
            entries.append(scanner.close())
        sizes = [layer.stat().st_size for layer in layers]
        image = write_erofs(flatten(entries), sizes)
        assert check_erofs(image, sizes).inodes == ErofsImage(image).inodes
        number = len(list(place.glob("mount*")))
        target = place / f"mount{number}"
        target.mkdir()
        meta = place / f"meta{number}.erofs"
        meta.write_bytes(image)
        try:
            mount_erofs(str(meta), [str(layer) for layer in layers], str(target))
        except MountFailed as error:
            pytest.skip(f"the kernel cannot mount EROFS straight from files: {error}")
        return target

    return make


def tar(archive: Path, root: Path, *options: str, members: tuple[str, ...] = (".",)) -> Path:
    command = ["tar", "-C", str(root), "-cf", str(archive), *options, "--", *members]
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    return archive


def extract(archive: Path, target: Path) -> Path:
    target.mkdir(exist_ok=True)
    subprocess.run(
        ["tar", "-C", str(target), "-xpf", str(archive), "--xattrs", "--xattrs-include=*",
         "--numeric-owner"],
        check=True,
    )  # fmt: skip
    return target


def walk(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that can be seen of a tree; hard links as the first path of their inode."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, bytes] = {}
    base = os.fsencode(root)
    todo = [b""]
    while todo:
        path = todo.pop()
        full = os.path.join(base, path) if path else base
        info = os.lstat(full)
        data: object = None
        if stat.S_ISREG(info.st_mode):
            data = _digest(full)
        elif stat.S_ISLNK(info.st_mode):
            data = os.readlink(full)
        elif stat.S_ISDIR(info.st_mode):
            data = sorted(os.listdir(full))
            todo += [os.path.join(path, name) for name in sorted(data, reverse=True)]
        directory = stat.S_ISDIR(info.st_mode)
        first = inodes.setdefault(info.st_ino, path)
        found[path] = (
            info.st_mode,
            info.st_uid,
            info.st_gid,
            None if directory else info.st_size,
            info.st_nlink,
            info.st_mtime_ns,
            info.st_rdev,
            first,
            data,
            {name: os.getxattr(full, name, follow_symlinks=False) for name in _xattrs(full)},
        )
    return found


def _xattrs(path: bytes) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def _digest(path: bytes) -> str:
    with Path(os.fsdecode(path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same(ours: Path, theirs: Path) -> None:
    left, right = walk(ours), walk(theirs)
    assert sorted(left) == sorted(right)
    for path, seen in left.items():
        expected = right[path]
        if stat.S_ISDIR(int(str(seen[0]))):
            # ext4 counts subdirectories, btrfs does not: an expected 1 says nothing
            assert expected[4] in (1, seen[4]), path
        assert seen[:4] == expected[:4], path
        assert seen[5:] == expected[5:], path


def awkward(root: Path) -> None:
    """Make a tree of what archives and filesystems find hard."""
    root.mkdir()
    deep = root / "/".join("d" * 60 for _ in range(6))
    deep.mkdir(parents=True)
    (deep / ("n" * 255)).write_bytes(b"deep")
    (root / "many").mkdir()
    for number in range(3000):
        (root / "many" / f"file-{number}").write_bytes(b"%d" % number * (number % 700))
    os.link(root / "many" / "file-7", root / "hard")
    os.link(root / "many" / "file-7", deep / "hard")
    (root / "short").symlink_to("many/file-1")
    (root / "middle").symlink_to("m" * 470)
    (root / "long").symlink_to("l" * 4000)
    os.link(root / "short", root / "short2", follow_symlinks=False)
    for name, mode, device in [
        ("null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
        ("disk", stat.S_IFBLK | 0o660, os.makedev(259, 70_000)),
    ]:
        os.mknod(root / name, mode, device)
    os.mkfifo(root / "pipe", 0o600)
    (root / "setuid").write_bytes(b"#!/bin/sh\n")
    os.chown(root / "setuid", 100_000, 4_000_000_000)
    (root / "setuid").chmod(0o6755)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    # version 2, cap_net_raw+ep
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(root / "setuid", "security.capability", capability)
    os.setxattr(root / "sticky", "user.name", b"\0binary\xff" * 30)
    os.setxattr(root / "short", "trusted.t", b"on a link", follow_symlinks=False)
    acl = bytes.fromhex("02000000" "01000700ffffffff" "02000500e8030000" "04000500ffffffff"
                        "10000500ffffffff" "20000000ffffffff")  # fmt: skip
    os.setxattr(root / "sticky", "system.posix_acl_default", acl)
    with (root / "sparse").open("wb") as file:
        for at in (0, 1 << 20, 5_000_000):
            file.seek(at)
            file.write(b"data" * 2000)
        file.truncate(12_345_678)
    with (root / "hole").open("wb") as file:
        file.truncate(3 << 20)
    (root / "odd \xff\n").write_bytes(b"name")
    os.utime(root / "setuid", ns=(0, 1_234_567_890_123_456_789))
    os.utime(root / "null", ns=(0, -5_000_000_000))


@pytest.mark.parametrize(
    "options",
    [
        ("--format=posix", "--xattrs", "--xattrs-include=*", "--sparse"),
        ("--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.1"),
        ("--format=posix", "--sparse", "--sparse-version=0.0"),
        ("--format=gnu", "--sparse"),
        ("--format=gnu",),
    ],
    ids=" ".join,
)
def test_what_tar_extracts_is_what_is_mounted(
    place: Path, mount: Mount, options: tuple[str, ...]
) -> None:
    need("root", "erofs")
    awkward(place / "source")
    archive = tar(place / "layer.tar", place / "source", *options)
    same(mount(archive), extract(archive, place / "expected"))


def test_the_kernel_lists_and_finds_every_name(place: Path, mount: Mount) -> None:
    need("root", "erofs")
    awkward(place / "source")
    target = mount(tar(place / "layer.tar", place / "source"))
    names = os.listdir(target / "many")
    assert len(names) == len(set(names)) == 3000
    assert all((target / "many" / name).exists() for name in names)
    assert not (target / "many" / "file-3000").exists()
    assert not (target / "many" / "a").exists()


def test_data_can_be_mapped(place: Path, mount: Mount) -> None:
    need("root", "erofs")
    (place / "source").mkdir()
    library = Path(os.__file__)
    (place / "source" / "file").write_bytes(library.read_bytes())
    target = mount(tar(place / "layer.tar", place / "source"))
    with (target / "file").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert mapped[:] == library.read_bytes()
        mapped.close()


def test_layers_are_flattened(place: Path, mount: Mount) -> None:
    need("root", "erofs")
    lower, upper = place / "lower", place / "upper"
    awkward(lower)
    upper.mkdir()
    (upper / "many").mkdir()
    (upper / "many" / ".wh..wh..opq").touch()
    (upper / "many" / "new").write_bytes(b"new" * 400)
    (upper / ".wh.short").touch()
    (upper / ".wh.disk").touch()
    (upper / "sticky").write_bytes(b"was a directory")
    (upper / "pipe").mkdir()
    layers = [
        tar(place / "1.tar", lower, "--format=posix", "--xattrs", "--xattrs-include=*"),
        tar(place / "2.tar", upper, "--format=posix"),
    ]
    expected = extract(layers[0], place / "expected")
    for path in (expected / "many").iterdir():
        path.unlink()
    for name in ("short", "disk", "pipe"):
        (expected / name).unlink()
    (expected / "sticky").rmdir()
    extract(layers[1], expected)
    for path in (expected / "many" / ".wh..wh..opq", expected / ".wh.short", expected / ".wh.disk"):
        path.unlink()
    for path in (upper, upper / "many"):
        times = path.stat().st_mtime_ns
        target = expected / path.relative_to(upper)
        os.utime(target, ns=(times, times))
    same(mount(*layers), expected)


def test_a_real_tree(place: Path, mount: Mount) -> None:
    need("root", "erofs")
    source = Path("/usr/lib/python3")
    if not source.is_dir():
        pytest.skip("no /usr/lib/python3 here")
    archive = tar(place / "layer.tar", source, "--format=posix")
    same(mount(archive), extract(archive, place / "expected"))


def test_sockets_are_mounted(place: Path, mount: Mount) -> None:
    need("root", "erofs")
    # no archive has sockets; the index format does
    sizes = [512]
    image = write_erofs(flatten([[Entry(b"s", stat.S_IFSOCK, 0o600)]]), sizes)
    check_erofs(image, sizes)
    layer, meta, target = place / "layer", place / "meta", place / "mount-socket"
    layer.write_bytes(bytes(512))
    meta.write_bytes(image)
    target.mkdir()
    try:
        mount_erofs(str(meta), [str(layer)], str(target))
    except MountFailed as error:
        pytest.skip(f"the kernel cannot mount EROFS straight from files: {error}")
    assert stat.S_ISSOCK((target / "s").lstat().st_mode)
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(target / "s"))


def test_the_kernel_survives_what_the_checker_lets_through(place: Path, mount: Mount) -> None:
    """Damage that the checker does not call damage must mount and walk without an error."""
    need("root", "erofs")
    awkward(place / "source")
    archive = tar(place / "layer.tar", place / "source", "--format=posix", "--sparse")
    mount(archive)
    image = (place / "meta0.erofs").read_bytes()
    sizes = [archive.stat().st_size]
    chance = random.Random(1)
    passed = 0
    for number in range(400):
        data = bytearray(image)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(1024, len(data))] = chance.randrange(256)
        try:
            check_erofs(bytes(data), sizes)
        except IndexFormatError:
            continue
        passed += 1
        if passed > 25:
            break
        target, meta = place / f"mount-d{number}", place / "damaged.erofs"
        target.mkdir()
        meta.write_bytes(data)
        mount_erofs(str(meta), [str(archive)], str(target))
        try:
            assert len(walk(target)) > 3000
        finally:
            unmount(str(target))
    assert passed
