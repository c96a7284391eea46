"""What commands show to people."""

from __future__ import annotations

import pytest

from clip_runc.cli.console import emit_json, layer_progress, size, table


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (5_570_000_000, "5.6 GB"),
        (7e13, "70000.0 GB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_table_aligns_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    table([("a", 5), ("long", 12345)], ("name", "count"))
    assert capsys.readouterr().out == "name  count\na         5\nlong  12345\n"


def test_table_without_rows_has_its_headers(capsys: pytest.CaptureFixture[str]) -> None:
    table([], ("digest", "index"))
    assert capsys.readouterr().out == "digest  index\n"


def test_json_escapes_names_that_are_no_unicode(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"path": b"\xff".decode("utf-8", "surrogateescape")})
    assert '"\\udcff"' in capsys.readouterr().out


def test_progress_away_from_a_terminal_is_two_lines_a_layer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with layer_progress() as progress:
        for done in (0, 10, 20, 100, 100):
            progress("sha256:" + "ab" * 32, done, 100)
    assert capsys.readouterr().err == (
        "layer abababababab: 100 B …\nlayer abababababab: 100 B indexed\n"
    )


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with layer_progress(quiet=True) as progress:
        progress("sha256:00", 1, 1)
    assert capsys.readouterr() == ("", "")
