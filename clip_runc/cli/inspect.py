"""``clipctl inspect``: what is in an index."""

from __future__ import annotations

import os
import shlex
from typing import Any

import click

from clip_runc.cli.console import emit_json, size, table
from clip_runc.cli.opening import index_path
from clip_runc.config import load
from clip_runc.index.clip_check import check_clip
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.model import ESTARGZ, ZSTD_CHUNKED, ZTOC
from clip_runc.index.prefetch import listed_bytes
from clip_runc.linux.unprivileged import run_unprivileged

_ORIGINS = {
    ESTARGZ: "eStargz TOC",
    ZSTD_CHUNKED: "zstd:chunked TOC",
    ZTOC: "SOCI zTOC",
}


@click.command("inspect")
@click.argument("index")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
def command(index: str, as_json: bool) -> None:
    """Show layers, sizes, files and source of INDEX (a .clip file, or an indexed reference).

    A layer "from" a table of contents was never read: that its tar stream has the digest which
    the image's config says, nobody has checked.
    """
    settings = load()
    path = index_path(settings, index)
    clip = ClipFile.open(path)
    fd = clip.fileno()
    # The whole file is looked through here, which only a process without privileges may do.
    summary = run_unprivileged(
        settings.server_uid, _summary, fd, os.path.getsize(path), keep_fds=[fd]
    )
    assert isinstance(summary, dict)
    if as_json:
        emit_json({"file": path, **summary})
    else:
        _show(path, summary)


def _summary(fd: int, file_size: int) -> dict[str, Any]:
    clip = ClipFile.open(fd)
    stats = check_clip(clip)
    compressed = sum(layer.comp_size for layer in clip.layers)
    return {
        "source": clip.source,
        "digest": clip.manifest_digest,
        "platform": clip.platform,
        "content_digest": clip.content_digest,
        "size": file_size,
        "compressed": compressed,
        "share": file_size / compressed if compressed else 0.0,
        "parts": clip.parts,
        "raw": sum(layer.raw_size for layer in clip.layers),
        "inodes": stats.inodes,
        "files": stats.files,
        "directories": stats.dirs,
        "symlinks": stats.symlinks,
        "others": stats.others,
        "file_bytes": stats.bytes,
        "prefetch": [
            {
                "command": one.command,
                "ranges": len(one.ranges),
                "phases": 1 + max((r.phase for r in one.ranges), default=-1),
                "bytes": listed_bytes(one, clip.layers),
            }
            for one in clip.prefetch()
        ],
        "layers": [
            {
                "digest": layer.digest,
                "diff_id": layer.diff_id,
                "media_type": layer.media_type,
                "codec": layer.codec,
                "from": layer.origin or "layer",
                "toc": layer.toc or None,
                "compressed": layer.comp_size,
                "raw": layer.raw_size,
                "chunks": len(layer.chunks),
                "windows": sum(chunk.window[1] for chunk in layer.chunks),
            }
            for layer in clip.layers
        ],
    }


def _list_line(one: dict[str, Any]) -> str:
    command = "".join(c if c.isprintable() else "?" for c in shlex.join(one["command"]))
    return f"{size(one['bytes'])} in {one['ranges']} ranges for {command[:200]}"


def _show(path: str, summary: dict[str, Any]) -> None:
    rows = [
        ("index", f"{path} ({size(summary['size'])}, {summary['share']:.2%} of the layers)"),
        ("parts", ", ".join(f"{name} {size(n)}" for name, n in summary["parts"].items())),
        ("source", f"{summary['source']}@{summary['digest']}"),
        ("platform", summary["platform"]),
        ("content", summary["content_digest"]),
        (
            "tree",
            f"{summary['files']} files, {summary['directories']} directories, "
            f"{summary['symlinks']} symlinks, {summary['others']} others; "
            f"{size(summary['file_bytes'])} of file data",
        ),
        ("prefetch", "; ".join(map(_list_line, summary["prefetch"])) or "no list"),
    ]
    for name, value in rows:
        click.echo(f"{name:<9} {value}")
    click.echo()
    table(
        [
            (
                layer["digest"].removeprefix("sha256:")[:12],
                _ORIGINS.get(layer["from"], "layer"),
                layer["codec"],
                size(layer["compressed"]),
                size(layer["raw"]),
                layer["chunks"],
                size(layer["windows"]),
            )
            for layer in summary["layers"]
        ],
        ("layer", "from", "codec", "compressed", "raw", "chunks", "windows"),
    )
