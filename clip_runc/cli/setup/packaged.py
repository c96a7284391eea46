"""Whether clip-runc came as a package of the distribution, which then owns some of its files."""

from __future__ import annotations

from pathlib import Path

# Beside the package ``clip_runc``; its text is the directory of the executables.
NOTE = "clip-runc.packaged"


def bin_dir() -> str:
    """Where the package has put clip-runc, its hook and clipctl; ``""`` without a package."""
    note = Path(__file__).resolve().parents[3] / NOTE
    try:
        return note.read_text().strip()
    except OSError:
        return ""
