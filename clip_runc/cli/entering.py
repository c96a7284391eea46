"""An ordinary user's ``clipctl`` goes where their mounts are, and starts again there."""

from __future__ import annotations

import os
import sys

import click

from clip_runc.errors import MountFailed
from clip_runc.linux import user_namespace

# Need mounts, or the rights of the namespace; write what has to belong to its ids; only look.
MOUNTING = frozenset(("gc", "mount", "run", "umount", "unshare"))
WRITING = frozenset(("bundle", "doctor", "import", "index", "pull", "record", "store"))
LOOKING = frozenset(
    ("events", "logs", "metrics", "ps", "report", "status", "stop", "top", "traces", "upgrade")
)  # fmt: skip


def enter_for(command: str) -> None:
    """Start this program again in the user's namespaces, if the command wants them.

    Returns where it does not, or where there are none and it can do without.  Raises
    ``MountFailed`` where it cannot.
    """
    makes = command in MOUNTING or command in WRITING
    if not (makes or command in LOOKING):
        return
    from clip_runc.fs import namespaces

    if not namespaces.enter() and not (makes and _make(command)):
        return
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _make(command: str) -> bool:
    """Be in a namespace of our own; False where there can be none and ``command`` needs none."""
    try:
        poor = user_namespace.make()
    except MountFailed:
        if command in MOUNTING:
            raise
        return False
    if poor:
        click.echo(f"clipctl: a user namespace of one id, as {poor} (docs/rootless.md)", err=True)
    return True
