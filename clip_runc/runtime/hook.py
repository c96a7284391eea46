"""The poststop hook: which file it is, and what it is told.

It is told directories rather than a configuration file: what was in force when the container was
made has to be used to take it down.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from clip_runc.config import Settings

NAME = "clip-runc-poststop"


def find_hook(settings: Settings, launcher: str) -> str:
    """The hook beside the launcher, else one in ``<state_dir>/bin``, written where it must be.

    A package that was installed with pip alone has no launcher; a script of pip's would read
    ``site`` and the environment.  Raises ``OSError`` where it cannot be written.
    """
    if launcher:
        beside = f"{os.path.dirname(launcher)}/{NAME}"
        if os.access(beside, os.X_OK):
            return beside
    from clip_runc.runtime.launcher import POSTSTOP, launcher_text, read_text, write_text

    path = f"{settings.state_dir}/bin/{NAME}"
    text = launcher_text(POSTSTOP)
    if read_text(path) != text:
        write_text(path, text)
    return path


def arguments_for(settings: Settings, key: str, creator: tuple[int, int]) -> Sequence[str]:
    """The hook's arguments, in the order that ``parse_arguments`` takes them apart."""
    return (settings.state_dir, settings.run_dir, key, f"{creator[0]}:{creator[1]}")


def parse_arguments(arguments: Sequence[str]) -> tuple[str, str, str, tuple[int, int]] | None:
    """state_dir, run_dir, key and creator; None where they are not ours."""
    from clip_runc.containers.key import is_key

    if len(arguments) != 4:
        return None
    state_dir, run_dir, key, creator = arguments
    pid, _, started = creator.partition(":")
    if not (state_dir.startswith("/") and run_dir.startswith("/") and is_key(key)):
        return None
    if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in (pid, started)):
        return None
    return state_dir, run_dir, key, (int(pid), int(started))
