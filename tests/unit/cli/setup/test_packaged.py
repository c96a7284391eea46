"""A source tree is no package."""

from __future__ import annotations

from clip_runc.cli.setup import packaged


def test_a_source_tree_is_no_package() -> None:
    assert packaged.bin_dir() == ""
