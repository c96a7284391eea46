"""``clipctl unshare``: a command in the user's namespaces."""

from __future__ import annotations

import os

import click

from clip_runc.config import in_first_user_namespace
from clip_runc.errors import ClipError


@click.command("unshare", context_settings={"ignore_unknown_options": True})
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(args: tuple[str, ...]) -> None:
    """Run ARGS (default: a shell) as root of the user namespace in which an ordinary user mounts.

    It is that of podman, or of the clipd that runs, or a new one. clip-runc and runc are called in
    it: clipctl unshare clip-runc run ctr1
    """
    if in_first_user_namespace():
        raise ClipError("root needs no user namespace", "call the command itself")
    argv = list(args) or [os.environ.get("SHELL", "/bin/sh")]
    os.execvp(argv[0], argv)
