from __future__ import annotations

import os
import subprocess
from pathlib import Path

from clip_runc.containers import removal
from clip_runc.containers.removal import remove_tree


def test_everything_goes_and_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/link").symlink_to(outside)
    (tree / "a/file").write_text("x")
    (tree / "escape").symlink_to("../outside/kept")
    os.mkfifo(tree / "fifo")
    (tree / "work").mkdir(mode=0)
    assert remove_tree(str(tree)) == []
    assert not tree.exists()
    assert (outside / "kept").read_text() == "kept"


def test_a_symlink_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    assert remove_tree(str(tmp_path / "link")) == []
    assert (tmp_path / "dir").is_dir() and not (tmp_path / "link").is_symlink()


def test_nothing_there_is_done_already(tmp_path: Path) -> None:
    assert remove_tree(str(tmp_path / "missing")) == []


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkdir(os.fsencode(tree) + b"/\xff\xfe")
    assert remove_tree(str(tree)) == []


def test_depth_takes_neither_descriptors_nor_stack(tmp_path: Path) -> None:
    """3,000 levels, twice, where 1,000 would end the recursion and 1,024 the descriptors."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a", "b"):
        fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
        for _ in range(3000):
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
    assert remove_tree(str(tree)) == []
    assert not tree.exists()


def test_immutable_files_go_too(tmp_path: Path) -> None:
    """``chattr +i`` is allowed to a container with CAP_LINUX_IMMUTABLE."""
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "dir/file").write_text("x")
    for flag, name in (("+i", "dir/file"), ("+a", "dir")):
        subprocess.run(["chattr", flag, str(tree / name)], check=True)
    assert remove_tree(str(tree)) == []
    assert not tree.exists()


def test_it_stops_when_the_time_is_over(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(50):
        (tree / str(number)).mkdir(parents=True)
    assert "not all removed" in remove_tree(str(tree), seconds=-1)[0]
    assert tree.exists()
    assert remove_tree(str(tree)) == []


def test_another_device_is_left_alone(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        (tree / "mounted").mkdir()
        work = removal._Removal(fd, float("inf"))
        work.device += 1
        work.run()
    finally:
        os.close(fd)
    assert (tree / "mounted").is_dir()
    assert "mounted" in work.kept[0]
