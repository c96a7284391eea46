"""A run whose reads are all seen: on state of its own, with a mount that no cache knows.

clip-runc starts the workload as ever, but with a clipd, a store and mounts that last as long as
the recording.  So every byte that it reads comes by the server, whatever the kernel or the
store of this machine have of the image.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from clip_runc.config import Settings
from clip_runc.config_files import toml
from clip_runc.errors import ClipError
from clip_runc.fs.client import connect
from clip_runc.fs.start import differences
from clip_runc.images import local
from clip_runc.images.recorded import touches_of
from clip_runc.index.prefetch import Touch
from clip_runc.linux.files import make_private_dir
from clip_runc.linux.storage import refuse_unsuitable

_END_SECONDS = 20


class Stage:
    """Directories and settings of one recording."""

    def __init__(self, settings: Settings, state: str, run: str) -> None:
        self.directory = state
        self.run = run
        self.config = f"{state}/config.toml"
        self.bundle = f"{state}/bundle"
        self.settings = Settings(
            **{
                **differences(settings),
                "state_dir": f"{state}/state",
                "run_dir": run,
                "prefetch": False,
                "store_limit": 0,
                "image_linger": 3600,
            }
        )

    def write(self) -> None:
        """Make the directories and the configuration file that clip-runc is given."""
        make_private_dir(self.directory)
        make_private_dir(self.settings.state_dir, 0o755)
        text = "".join(
            f"{key} = {toml(value)}\n" for key, value in differences(self.settings).items()
        )
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(text)


@contextlib.contextmanager
def stage(settings: Settings) -> Iterator[Stage]:
    """A stage for one recording; nothing of it stays."""
    refuse_unsuitable(settings.state_dir)
    make_private_dir(settings.state_dir, 0o755)
    make_private_dir(settings.run_dir, 0o711)
    name = f"record-{secrets.token_hex(4)}"
    found = Stage(settings, f"{settings.state_dir}/{name}", f"{settings.run_dir}/{name}")
    try:
        found.write()
        yield found
    finally:
        _strike(found)


def _strike(found: Stage) -> None:
    client = connect(found.settings)
    if client is not None:
        with client:
            client.stop()
    shutil.rmtree(found.directory, ignore_errors=True)
    shutil.rmtree(found.run, ignore_errors=True)


def run_recorded(
    runtime: Sequence[str], on: Stage, duration: float | None, stdout: int | None = None
) -> list[Touch]:
    """Run the bundle of the stage once and return what it read.

    ``runtime`` is the argv of clip-runc; ``stdout`` is the container's, by default this
    process's own; ``duration`` seconds after the start the container is
    killed, by default it is waited for.  Raises ``ClipError`` where the container failed, unless
    ``duration`` ended it.
    """
    argv = [*runtime, "--root", f"{on.run}/runc"]
    environ = {**os.environ, "CLIP_RUNC_CONFIG": on.config}
    with subprocess.Popen(
        [*argv, "run", "--bundle", on.bundle, "recorded"], env=environ, stdout=stdout
    ) as process:
        try:
            status = process.wait(duration)
        except subprocess.TimeoutExpired:
            status = None
        except BaseException:
            _kill(argv, environ, process)
            raise
        touches = _seen(on)
        if status is None:
            _kill(argv, environ, process)
    if status:
        raise ClipError(
            f"the workload ended with status {status}; nothing was recorded",
            "record a run that succeeds",
        )
    return touches


def _seen(on: Stage) -> list[Touch]:
    images = list(local.list_images(on.settings))
    client = connect(on.settings)
    if client is None or not images:
        return []
    with client:
        return touches_of(client, images[0][0].manifest_hex)


def _kill(argv: Sequence[str], environ: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    """End the container; ``clip-runc run`` then deletes it and ends."""
    subprocess.run(
        [*argv, "kill", "recorded", "KILL"], env=environ, check=False, capture_output=True
    )
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        subprocess.run(
            [*argv, "delete", "--force", "recorded"],
            env=environ, check=False, capture_output=True,
        )  # fmt: skip
