"""Completions of clipctl for bash, zsh and fish, and the man pages."""

from __future__ import annotations

import sys
from pathlib import Path

from click.shell_completion import get_completion_class

from clip_runc.cli.setup.changes import MARK, Change, own_file, removals
from clip_runc.errors import ConfigError

_SHARE = "/usr/local/share"
PLACES = {
    "bash": "bash-completion/completions/clipctl",
    "zsh": "zsh/site-functions/_clipctl",
    "fish": "fish/vendor_completions.d/clipctl.fish",
}
MAN = ("clip-runc.8", "clipctl.8")


def install(root: str) -> list[Change]:
    """The files.  Raises ``ConfigError``."""
    found = [
        own_file(f"{_SHARE}/{place}", completion(name), root) for name, place in PLACES.items()
    ]
    for page in MAN:
        text = f'.\\" {MARK}\n{man_page(page)}'
        found.append(own_file(f"{_SHARE}/man/man8/{page}", text, root))
    return found


def uninstall(root: str) -> list[Change]:
    """Without them."""
    places = [*PLACES.values(), *(f"man/man8/{page}" for page in MAN)]
    return removals([f"{_SHARE}/{place}" for place in places], root)


def completion(shell: str) -> str:
    """The script for a shell; it asks clipctl when it completes, so it never gets old."""
    from clip_runc.cli.main import clipctl

    found = get_completion_class(shell)
    assert found is not None
    text = found(clipctl, {}, "clipctl", "_CLIPCTL_COMPLETE").source().strip("\n")
    # zsh reads the first line: what this file completes
    first, newline, rest = text.partition("\n") if shell == "zsh" else ("", "", text)
    return f"{first}{newline}# {MARK}\n{rest}\n"


def man_page(name: str) -> str:
    """A page as the wheel installed it, or of the source tree.  Raises ``ConfigError``."""
    package = Path(__file__).resolve().parents[2]
    # site-packages is PREFIX/lib/pythonX.Y/site-packages
    prefixes = [package.parents[3], Path(sys.prefix)] if len(package.parents) > 3 else []
    places = [package.parent / "docs/man" / name]
    places += [prefix / "share/man/man8" / name for prefix in prefixes]
    for place in places:
        if place.is_file():
            return place.read_text()
    raise ConfigError(f"the man page {name} is not installed", "install clip-runc anew with pip")
