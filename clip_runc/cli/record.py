"""``clipctl record``: what a command reads, noted in the index, to be fetched first next time."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from clip_runc.cli.bundle import choices_of, spec_options, write_bundle
from clip_runc.cli.console import emit_json, size
from clip_runc.cli.opening import ensure_index
from clip_runc.cli.run import runtime_argv
from clip_runc.config import Settings, load
from clip_runc.errors import ClipError, NotFound
from clip_runc.images.recorded import Recorded, forget_lists, write_list


@click.command("record", context_settings={"ignore_unknown_options": True})
@click.argument("reference")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@spec_options
@click.option(
    "--duration",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Kill the container after so long; default: wait for its end.",
)
@click.option(
    "--container",
    is_flag=True,
    help="REFERENCE is the id of a container that runs: note what clipd has seen of its image.",
)
@click.option("--forget", is_flag=True, help="Remove every list from the index instead.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    reference: str,
    args: tuple[str, ...],
    duration: float | None,
    container: bool,
    forget: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run REFERENCE once and note in its index which chunks it reads, in which order.

    A later cold start of the same command has them fetched before the container asks. ARGS replace
    the image's Cmd. The run has a store and a clipd of its own that end with it: all that it reads
    comes from the registry. The list travels with the index: clipctl push, pull, publish.
    """
    settings = load()
    if forget:
        count = forget_lists(settings, ensure_index(settings, reference))
        click.echo(f"{count} list{'' if count == 1 else 's'} removed")
        return
    if container:
        done = _of_container(settings, reference)
    else:
        # what the container prints must not mix with the JSON
        stdout = sys.stderr.fileno() if as_json else None
        done = _of_run(settings, reference, args, duration, options, stdout)
    if as_json:
        emit_json(done.as_dict())
        return
    click.echo(
        f"{shlex.join(done.command)[:200]}: {done.chunks} chunks, {size(done.bytes)} "
        f"of {size(done.image_bytes)}, in {done.ranges} ranges and {done.phases} phase"
        f"{'' if done.phases == 1 else 's'}"
    )


def _of_run(
    settings: Settings,
    reference: str,
    args: tuple[str, ...],
    duration: float | None,
    options: dict[str, Any],
    stdout: int | None,
) -> Recorded:
    from clip_runc.images.record import run_recorded, stage

    path = ensure_index(settings, reference)
    with stage(settings) as on:
        key = write_bundle(on.settings, path, on.bundle, choices_of(args, options))
        touches = run_recorded(runtime_argv(), on, duration, stdout)
    return write_list(settings, path, key, touches)


def _of_container(settings: Settings, container: str) -> Recorded:
    from clip_runc.containers.state import list_states
    from clip_runc.fs.client import Client
    from clip_runc.images.command import arguments_of
    from clip_runc.images.lean import loads_object
    from clip_runc.images.local import at
    from clip_runc.images.recorded import touches_of

    found = [one for one in list_states(settings) if container in (one.id, one.key)]
    if len(found) != 1:
        problem = "several containers have that id" if found else "no such container"
        raise NotFound(f"{container}: {problem}", "clipctl ps lists them; a key is as good")
    state = found[0]
    try:
        with open(f"{state.bundle}/config.json", "rb") as file:
            spec = loads_object(file.read())
    except (OSError, ValueError) as error:
        raise ClipError(f"{state.bundle}/config.json: {error}") from None
    with Client.connect(settings) as client:
        touches = touches_of(client, state.image)
    return write_list(settings, at(settings, state.image).index_path, arguments_of(spec), touches)
