"""``clipctl diff``: what differs between two indexes, by path."""

from __future__ import annotations

from typing import Any

import click

from clip_runc.cli.console import emit_json
from clip_runc.cli.ls import printable
from clip_runc.cli.opening import open_index
from clip_runc.config import load
from clip_runc.index.clip_check import check_clip
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.tree_diff import ADDED, CHANGED, REMOVED, Change, Tree, diff_trees
from clip_runc.linux.privileges import drop_privileges

_MARKS = {ADDED: "+", REMOVED: "-", CHANGED: "M"}


@click.command("diff")
@click.argument("old")
@click.argument("new")
@click.option(
    "--strict", is_flag=True, help="Data at another place in the layers is a difference, too."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON array of objects.")
def command(old: str, new: str, strict: bool, as_json: bool) -> int:
    """Show what NEW has otherwise than OLD: paths added (+), removed (-), changed (M) and how.

    Each is a .clip file, or a reference that is indexed here. Nothing is fetched. An index holds
    no hashes of files: data count as the same where both point at the same bytes of the same
    layer, and elsewhere (without --strict) where size and modification time agree.

    Exits with 1 when something differs.
    """
    settings = load()
    clips = [open_index(settings, name) for name in (old, new)]
    # From here on the indexes are looked into, which may have been made to deceive.
    drop_privileges(settings.server_uid, keep_fds=[clip.fileno() for clip in clips])
    changes = diff_trees(*[_tree(clip) for clip in clips], strict=strict)
    if as_json:
        records = [_record(change) for change in changes]
        emit_json(records)
        return 1 if records else 0
    status = 0
    for change in changes:
        status = 1
        click.echo(_line(change))
    return status


def _tree(clip: ClipFile) -> Tree:
    check_clip(clip)
    return Tree(clip.erofs(), [layer.diff_hex for layer in clip.layers])


def _line(change: Change) -> str:
    what = ", ".join(_words(name, *pair) for name, pair in change.attributes.items())
    return f"{_MARKS[change.kind]} {printable(change.path)}{f'  ({what})' if what else ''}"


def _words(name: str, old: object, new: object) -> str:
    if name == "data" or name.startswith("xattr "):
        return name if name == "data" or None not in (old, new) else _come_or_gone(name, old)
    return f"{name} {_value(name, old)} → {_value(name, new)}"


def _come_or_gone(name: str, old: object) -> str:
    return f"{'+' if old is None else '-'}{name}"


def _value(name: str, value: object) -> str:
    if name == "mode" and isinstance(value, int):
        return f"{value:04o}"
    if isinstance(value, bytes):
        return printable(value)
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    return "none" if value is None else str(value)


def _record(change: Change) -> dict[str, Any]:
    record: dict[str, Any] = {
        "path": change.path.decode("utf-8", "surrogateescape"),
        "change": change.kind,
    }
    if change.attributes:
        record["attributes"] = {
            name: {"old": _plain(old), "new": _plain(new)}
            for name, (old, new) in change.attributes.items()
        }
    return record


def _plain(value: object) -> object:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
