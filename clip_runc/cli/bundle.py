"""``clipctl bundle``: a bundle that ``clip-runc run`` takes as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from clip_runc.cli.opening import ensure_index, looks_like_file
from clip_runc.config import ANNOTATION_INDEX, Settings, is_rootless, load
from clip_runc.errors import BundleError
from clip_runc.images.command import arguments_of
from clip_runc.images.content import read_small
from clip_runc.images.runtime_spec import Choices, runtime_spec
from clip_runc.images.source import access_of
from clip_runc.index.clipfile import ClipFile
from clip_runc.linux.files import write_atomic

_ACCOUNTS = (b"/etc/passwd", b"/etc/group")


def spec_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of ``bundle`` and ``run`` that go into config.json."""
    options = (
        click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable."),
        click.option("-u", "--user", default="", help="user[:group] in place of the image's."),
        click.option("-w", "--workdir", default="", help="Working directory."),
        click.option("--hostname", default="clip", show_default=True, help="Host name."),
        click.option("-t", "--tty", is_flag=True, help="Give the container a terminal."),
        click.option(
            "--network",
            type=click.Choice(["none", "host"]),
            default="none",
            show_default=True,
            help="An own network namespace with nothing in it, or the host's.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def choices_of(args: tuple[str, ...], options: dict[str, Any]) -> Choices:
    """``Choices`` from what click parsed for ``spec_options``."""
    return Choices(
        args=args,
        env=options["env"],
        user=options["user"],
        cwd=options["workdir"],
        hostname=options["hostname"],
        terminal=options["tty"],
        host_network=options["network"] == "host",
        user_namespace=is_rootless(),
    )


@click.command("bundle", context_settings={"ignore_unknown_options": True})
@click.argument("reference")
@click.argument("directory", type=click.Path(file_okay=False))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@spec_options
@click.option("--force", is_flag=True, help="Replace a config.json that is there.")
def command(
    reference: str, directory: str, args: tuple[str, ...], force: bool, **options: Any
) -> None:
    """Write a bundle for REFERENCE (or a .clip file) to DIRECTORY, indexing it where needed.

    ARGS replace the image's Cmd. Then: cd DIRECTORY && clip-runc run ctr1
    """
    if (Path(directory) / "config.json").exists() and not force:
        raise BundleError(
            f"{directory}: has a config.json already", "another directory, or --force"
        )
    write_bundle(load(), reference, directory, choices_of(args, options))
    click.echo(f"{directory}: try  clip-runc run --bundle {directory} ctr1")


def write_bundle(
    settings: Settings, reference: str, directory: str, choices: Choices, *, keep: bool = False
) -> list[str]:
    """Make ``directory`` with config.json and an empty rootfs; the key of its command.

    ``keep``: what has to be fetched for an index stays for the container.  Raises ``ClipError``.
    """
    path = ensure_index(settings, reference, keep=keep)
    clip = ClipFile.open(path)
    config = _image_config(clip)
    accounts: dict[bytes, bytes] = {}
    if needs_accounts(choices.user or (config.get("config") or {}).get("User") or ""):
        access = access_of(settings, clip)
        accounts = read_small(clip, access, _ACCOUNTS, uid=settings.server_uid)
    name = f"{clip.source}@{clip.manifest_digest}" if looks_like_file(reference) else reference
    spec = runtime_spec(
        config,
        name,
        choices,
        passwd=accounts.get(_ACCOUNTS[0], b""),
        group=accounts.get(_ACCOUNTS[1], b""),
    )
    if looks_like_file(reference):
        spec["annotations"][ANNOTATION_INDEX] = os.path.realpath(path)
    Path(directory, "rootfs").mkdir(parents=True, exist_ok=True, mode=0o755)
    data = json.dumps(spec, indent=2, ensure_ascii=False).encode()
    write_atomic(f"{directory}/config.json", data, mode=0o600)
    return arguments_of(spec)


def needs_accounts(user: str) -> bool:
    """Whether passwd and group must be read to know who ``user`` is.

    Root and bare ids do without, which keeps a bundle of most images free of any fetch;
    the home directory of an id that has an entry is then ``/root`` or ``/``.
    """
    first, _, second = user.partition(":")
    return not (
        first in ("", "0", "root") or (first.isdigit() and (not second or second.isdigit()))
    )


def _image_config(clip: ClipFile) -> dict[str, Any]:
    config = json.loads(clip.config)
    if not isinstance(config, dict):
        raise BundleError("the image's config is not a JSON object", "make the index again")
    return config
