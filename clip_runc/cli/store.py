"""``clipctl store``: the fetched layers on this machine."""

from __future__ import annotations

import os
import time

import click

from clip_runc.cli.console import emit_json, size, table
from clip_runc.config import load


@click.group("store")
def command() -> None:
    """Look at fetched layers, remove those that nobody uses, check what is on disk."""


def _open(directory: str) -> int:
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


@command.command("ls")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def list_layers(as_json: bool) -> None:
    """List the layers, the least recently used first."""
    from clip_runc.store.eviction import in_use, stored

    fd = _open(load().store_dir)
    layers = stored(fd) if fd >= 0 else []
    rows = [{**layer._asdict(), "in_use": in_use(fd, layer.name)} for layer in layers]
    if as_json:
        emit_json(rows)
        return
    table(
        [
            (
                layer.name[:12],
                size(layer.size),
                size(layer.length),
                time.strftime("%Y-%m-%d %H:%M", time.localtime(layer.used)),
                "yes" if row["in_use"] else "no",
            )
            for layer, row in zip(layers, rows, strict=True)
        ],
        ("layer", "on disk", "of", "used", "in use"),
    )


@command.command("prune")
@click.option("--to", "most", type=click.IntRange(min=0), default=0, help="Bytes to keep.")
def prune_layers(most: int) -> None:
    """Remove layers that no container uses, the least recently used first."""
    from clip_runc.store.eviction import prune

    fd = _open(load().store_dir)
    gone = prune(fd, most) if fd >= 0 else []
    for layer in gone:
        click.echo(f"{layer.name} {size(layer.size)}")
    click.echo(f"{len(gone)} layers removed, {size(sum(layer.size for layer in gone))}")


@command.command("verify")
def verify_layers() -> int:
    """Hash what is on disk of every layer that an index here knows.  Exits with 1 if any is bad.

    What is bad is forgotten and fetched again when it is read next.
    """
    from clip_runc.images.inspection import check_stored
    from clip_runc.images.local import list_images
    from clip_runc.index.clipfile import ClipFile
    from clip_runc.linux.files import boot_id
    from clip_runc.linux.unprivileged import run_unprivileged

    settings = load()
    fd = _open(settings.store_dir)
    boot, seen, bad = boot_id(), set(), 0

    for image, _ in list_images(settings) if fd >= 0 else ():
        index = os.open(image.index_path, os.O_RDONLY | os.O_CLOEXEC)
        for number, layer in enumerate(ClipFile.open(index).layers):
            if layer.diff_id in seen:
                continue
            seen.add(layer.diff_id)
            result = run_unprivileged(
                settings.server_uid,
                check_stored,
                *(fd, index, number, boot),
                keep_fds=[fd, index],
                seconds=36_000,
            )
            if isinstance(result, list):
                good, wrong = result
                bad += wrong
                click.echo(f"{'✗' if wrong else '✓'} {layer.diff_hex}: {good} good, {wrong} bad")
        os.close(index)
    return 1 if bad else 0
