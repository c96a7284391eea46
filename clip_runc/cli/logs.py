"""``clipctl logs``: clipd's log, wherever it is."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click

from clip_runc.cli.setup.systemd import is_running
from clip_runc.config import load

UNIT = "clipd.service"
_PAUSE = 0.25


@click.command("logs")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is logged from now on.")
@click.option("--lines", "-n", "count", type=click.IntRange(0), default=100, show_default=True,
              help="How many of the last lines.")  # fmt: skip
def command(follow: bool, count: int) -> int:
    """Print clipd's log: from systemd's journal where systemd runs clipd, else from its file."""
    if runs_under_systemd():
        journal = ["journalctl", "--unit", UNIT, "--lines", str(count), "--no-pager"]
        return subprocess.run([*journal, "--follow"] if follow else journal, check=False).returncode
    path = f"{load().run_dir}/clipd.log"
    for line in last_lines(path, count):
        click.echo(line)
    if follow:
        for data in appended(path):
            click.echo(data, nl=False)
    return 0


def runs_under_systemd() -> bool:
    """Is clipd a unit that is active, or that the next container starts?"""
    if not is_running():
        return False
    try:
        units = [UNIT, "clipd.socket"]
        done = subprocess.run(["systemctl", "--quiet", "is-active", *units], check=False)
    except OSError:
        return False
    return done.returncode == 0


def last_lines(path: str, count: int) -> list[str]:
    """The last lines of the log, those of the file before it where one is too short."""
    lines: list[str] = []
    for name in (path, f"{path}.1"):
        if len(lines) < count:
            try:
                lines = Path(name).read_text(errors="replace").splitlines() + lines
            except FileNotFoundError:
                continue
    return lines[-count:] if count else []


def appended(path: str) -> Iterator[str]:
    """What is written to the log from now on; through its rotation."""
    position, inode = -1, -1
    while True:
        try:
            with open(path, "rb") as file:
                found = os.fstat(file.fileno())
                if position < 0:
                    position = found.st_size
                elif found.st_ino != inode:
                    position = 0
                inode = found.st_ino
                file.seek(position)
                data = file.read()
                position += len(data)
        except FileNotFoundError:
            position, data = max(position, 0), b""
        if data:
            yield data.decode(errors="replace")
        time.sleep(_PAUSE)
