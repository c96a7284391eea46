"""``clipctl run``: index where needed, write a bundle, start a container of it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from clip_runc.cli.bundle import choices_of, spec_options, write_bundle
from clip_runc.cli.console import size
from clip_runc.config import Settings, load
from clip_runc.linux.storage import refuse_unsuitable


@click.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("reference")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@spec_options
@click.option("--rm", "remove", is_flag=True, help="Remove the bundle when the container ends.")
@click.option("-d", "--detach", is_flag=True, help="Return when the container has started.")
@click.option("--name", help="The container's id; default: one made up.")
@click.option("--summary", is_flag=True, help="Afterwards, say how much of the image was fetched.")
def command(
    reference: str,
    args: tuple[str, ...],
    remove: bool,
    detach: bool,
    name: str | None,
    summary: bool,
    **options: Any,
) -> int:
    """Run a container of REFERENCE; ARGS replace the image's Cmd.

    The exit code is the container's.
    """
    if remove and detach:
        raise click.UsageError("--rm waits for the container's end; --detach does not wait")
    settings = load()
    container = name or f"clip-{secrets.token_hex(4)}"
    bundle = f"{settings.state_dir}/bundles/{container}"
    refuse_unsuitable(settings.state_dir)  # before the image is indexed
    write_bundle(settings, reference, bundle, choices_of(args, options), keep=True)
    before = _fetched(settings) if summary else 0
    try:
        code = _run(bundle, container, detach=detach)
    finally:
        if remove:
            shutil.rmtree(bundle, ignore_errors=True)
    if summary:
        click.echo(f"fetched {size(_fetched(settings) - before)} of the image", err=True)
    return code


def _run(bundle: str, container: str, *, detach: bool) -> int:
    """Run ``clip-runc run`` with our stdio; terminal signals reach it by itself."""
    argv = [
        *runtime_argv(),
        "run",
        "--bundle",
        bundle,
        *(["--detach"] if detach else []),
        container,
    ]
    with subprocess.Popen(argv) as process:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda caught, _: process.send_signal(caught))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = process.wait()
    return 128 - code if code < 0 else code


def runtime_argv() -> list[str]:
    """How ``clip-runc`` is called: the one beside us, the one in PATH, or our own module."""
    beside = Path(sys.argv[0]).absolute().parent / "clip-runc"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("clip-runc")
    return [found] if found else [sys.executable, "-m", "clip_runc.runtime.main"]


def _fetched(settings: Settings) -> int:
    from clip_runc.fs.client import connect

    client = connect(settings)
    if client is None:
        return 0
    with client:
        fetched = client.status().get("fetched", 0)
    return fetched if isinstance(fetched, int) else 0
