"""The benches' command lines: what the documents call, without waiting for figures."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from bench import matrix, peers
from bench.published_tables import FORMATS


@pytest.mark.parametrize("arguments", [matrix.arguments, peers.arguments])
def test_images_may_be_named_or_not(arguments: Callable[[], argparse.ArgumentParser]) -> None:
    assert arguments().parse_args([]).images == []
    assert arguments().parse_args(["torch", "true"]).images == ["torch", "true"]
    with pytest.raises(SystemExit):
        arguments().parse_args(["nothing"])


def test_peers_name_a_format_that_is_made() -> None:
    assert {peer.format for peer in peers.PEERS} <= set(FORMATS)
