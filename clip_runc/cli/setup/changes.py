"""Changes to files of the machine: planned, shown as a diff, made, and found again to undo them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from clip_runc.errors import ConfigError
from clip_runc.linux.files import write_atomic

# In every file that is ours alone, and in the first line of a block within another's.
MARK = "written by clipctl install"


class Change(NamedTuple):
    """``path`` is to have ``text``, or to be gone for None.  ``root`` stands before the path."""

    path: str
    text: str | None
    mode: int = 0o644
    root: str = ""

    @property
    def place(self) -> str:
        """Where it is on disk."""
        return self.root + self.path

    def current(self) -> str | None:
        """What is there now."""
        return read(self.place)

    def needed(self) -> bool:
        """Is anything to be done?"""
        return self.current() != self.text

    def diff(self) -> str:
        """What changes, as ``diff -u`` shows it."""
        old, new = self.current(), self.text
        lines = difflib.unified_diff(
            (old or "").splitlines(keepends=True),
            (new or "").splitlines(keepends=True),
            "/dev/null" if old is None else self.place,
            "/dev/null" if new is None else self.place,
        )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)

    def make(self) -> None:
        """Write the file, whole or not at all, or remove it."""
        if self.text is None:
            Path(self.place).unlink()
            return
        Path(self.place).parent.mkdir(parents=True, exist_ok=True)
        try:
            mode = os.stat(self.place).st_mode & 0o7777
        except FileNotFoundError:
            mode = self.mode
        # a link, /etc/containerd/config.toml into /usr say, stays a link
        write_atomic(os.path.realpath(self.place), self.text.encode(), mode)


def read(path: str) -> str | None:
    """The text of a file; None where there is none.  Raises ``ConfigError``."""
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", "mend it, or move it away") from None


def own_file(path: str, text: str, root: str, mode: int = 0o644) -> Change:
    """A file that is ours alone.  Raises ``ConfigError`` for one of somebody else."""
    old = read(root + path)
    if old is not None and MARK not in old:
        raise ConfigError(
            f"{root}{path} is there and was not written by clipctl install",
            "move it away, or choose another directory",
        )
    return Change(path, text, mode, root)


def removals(paths: Iterable[str], root: str) -> list[Change]:
    """Changes that remove those of the files that are ours."""
    return [
        Change(path, None, root=root)
        for path in paths
        if os.path.lexists(root + path) and MARK in (read(root + path) or "")
    ]
