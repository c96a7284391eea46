"""``clipctl upgrade``: replace a running clipd by one of the code that is installed now."""

from __future__ import annotations

import importlib

import click

from clip_runc import __version__
from clip_runc.config import load


@click.command("upgrade")
def command() -> int:
    """Replace clipd's processes by new ones while containers go on reading.

    The mount stays and no read fails: those under way are answered by the new server.  Settings
    are read again, but for the directories.  Exits with 3 when no clipd runs.
    """
    from clip_runc.fs.client import connect

    client = connect(load())
    if client is None:
        click.echo("clipd is not running; the first container starts the installed version")
        return 3
    importlib.import_module("clip_runc.fs.server")  # what cannot be loaded is told now
    with client:
        before = client.status()
        client.upgrade()
        after = client.status()
    for role in ("supervisor", "keeper", "server"):
        if _pid(before, role):  # no keeper under systemd
            click.echo(f"{role:<11} pid {_pid(before, role)} → {_pid(after, role)}")
    click.echo(f"version     {before.get('version', 'unknown')} → {__version__}")
    return 0


def _pid(status: dict[str, object], role: str) -> object:
    found = status.get(role)
    return found.get("pid") if isinstance(found, dict) else None
