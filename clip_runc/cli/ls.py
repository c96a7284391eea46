"""``clipctl ls``: the files of an image, from its index alone."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import Any

import click

from clip_runc.cli.console import emit_json
from clip_runc.cli.opening import open_index
from clip_runc.config import load
from clip_runc.errors import ClipError
from clip_runc.index.erofs_read import ErofsImage, Inode
from clip_runc.linux.privileges import drop_privileges


@click.command("ls")
@click.argument("index")
@click.argument("path", default="/")
@click.option("-l", "--long", "long_format", is_flag=True, help="Mode, owner, size, time, target.")
@click.option("-R", "--recursive", is_flag=True, help="The whole tree below PATH.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of objects.")
def command(index: str, path: str, long_format: bool, recursive: bool, as_json: bool) -> None:
    """List PATH in INDEX (a .clip file, or a reference that is indexed here)."""
    settings = load()
    clip = open_index(settings, index)
    # From here on the index is looked into, which may have been made to deceive.
    drop_privileges(settings.server_uid, keep_fds=[clip.fileno()])
    image = ErofsImage(clip.erofs())
    try:
        nid = image.resolve(os.fsencode(path))
    except KeyError:
        raise ClipError(f"{path}: no such file in the image") from None
    found = list(_walk(image, nid, os.fsencode(path).strip(b"/"), recursive=recursive))
    if as_json:
        emit_json([_record(image, name, inode) for name, inode in found])
        return
    for name, inode in found:
        click.echo(_line(image, name, inode) if long_format else printable(name))


def _walk(
    image: ErofsImage, nid: int, path: bytes, *, recursive: bool
) -> Iterator[tuple[bytes, Inode]]:
    inode = image.inode(nid)
    if not stat.S_ISDIR(inode.mode):
        yield b"/" + path, inode
        return
    # A stack of our own: the depth of a tree is the image's choice.
    waiting = [(nid, path)]
    while waiting:
        directory, prefix = waiting.pop()
        below = []
        for _, name, child in image.entries(directory):
            full = prefix + b"/" + name if prefix else name
            entry = image.inode(child)
            yield (b"/" + full if recursive else name), entry
            if recursive and stat.S_ISDIR(entry.mode):
                below.append((child, full))
        waiting.extend(reversed(below))


def printable(name: bytes) -> str:
    """``name`` for a terminal: UTF-8 where it is, escapes for control and other bytes."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _line(image: ErofsImage, name: bytes, inode: Inode) -> str:
    kind = stat.S_IFMT(inode.mode)
    amount = (
        f"{inode.rdev[0]}, {inode.rdev[1]}"
        if kind in (stat.S_IFCHR, stat.S_IFBLK)
        else str(inode.size)
    )
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(inode.mtime_ns // 10**9))
    target = f" -> {printable(image.readlink(inode.nid))}" if stat.S_ISLNK(inode.mode) else ""
    owner = f"{inode.uid}:{inode.gid}"
    mode = stat.filemode(inode.mode)
    return f"{mode} {inode.nlink:>3} {owner:>11} {amount:>12} {when} {printable(name)}{target}"


def _record(image: ErofsImage, name: bytes, inode: Inode) -> dict[str, Any]:
    record: dict[str, Any] = {
        "path": name.decode("utf-8", "surrogateescape"),
        "mode": stat.filemode(inode.mode),
        "uid": inode.uid,
        "gid": inode.gid,
        "size": inode.size,
        "mtime_ns": inode.mtime_ns,
        "links": inode.nlink,
    }
    if stat.S_ISLNK(inode.mode):
        record["target"] = image.readlink(inode.nid).decode("utf-8", "surrogateescape")
    if stat.S_IFMT(inode.mode) in (stat.S_IFCHR, stat.S_IFBLK):
        record["device"] = list(inode.rdev)
    return record
