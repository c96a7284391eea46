from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.runtime import report
from clip_runc.runtime.argv import Invocation

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"


def invocation(log: str = "", log_format: str = "", debug: bool = False) -> Invocation:
    found = Invocation()
    found.log, found.log_format, found.debug = log, log_format, debug
    return found


def test_text_is_quoted_where_logrus_quotes() -> None:
    line = report.format_line("", "error", 'exec: "/nope": no\tsuch', {"image": "a/b@c:1", "n": 3})
    assert re.fullmatch(
        rf'time="{TIME}" level=error msg="exec: \\"/nope\\": no\\tsuch" image="a/b@c:1" n=3\n', line
    )


def test_json_has_sorted_keys_and_escapes_markup() -> None:
    line = report.format_line("json", "error", 'a <b> & "c"\n', {"mode": "erofs"})
    assert re.fullmatch(
        r'\{"level":"error","mode":"erofs","msg":"a \\u003cb\\u003e \\u0026 \\"c\\"\\n",'
        rf'"time":"{TIME}"\}}\n',
        line,
    )
    assert json.loads(line)["msg"] == 'a <b> & "c"\n'


@given(st.text())
def test_json_is_json(message: str) -> None:
    line = report.format_line("json", "info", message)
    expected = message.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if message.isprintable():
        assert json.loads(line)["msg"] == expected
    assert line.count("\n") == 1


@given(st.text())
def test_text_is_one_line(message: str) -> None:
    assert report.format_line("text", "error", message).count("\n") == 1


def test_time_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    for zone, ending in (("UTC0", "Z"), ("XYZ-5:30", "+05:30"), ("XYZ3", "-03:00")):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert report.timestamp().endswith(ending)
    monkeypatch.delenv("TZ")
    time.tzset()


def test_an_error_goes_to_log_and_bare_to_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    report.report_error(invocation(str(log), "json"), "it failed")
    assert json.loads(log.read_text())["msg"] == "it failed"
    assert capfd.readouterr().err == "it failed\n"


def test_an_error_without_log_is_a_log_line(capfd: pytest.CaptureFixture[str]) -> None:
    report.report_error(invocation(), "it failed")
    assert re.fullmatch(rf'time="{TIME}" level=error msg="it failed"\n', capfd.readouterr().err)


def test_a_log_that_cannot_be_opened_loses_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report.report_error(invocation(str(tmp_path / "no" / "log")), "it failed")
    assert "it failed" in capfd.readouterr().err


def test_information_is_silent_without_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report.log(invocation(), "info", "mounted")
    assert capfd.readouterr().err == ""
    report.log(invocation(debug=True), "info", "mounted")
    assert "level=info msg=mounted" in capfd.readouterr().err
    log = tmp_path / "log"
    report.log(invocation(str(log), debug=True), "info", "mounted")
    assert "level=info msg=mounted" in log.read_text()
    assert capfd.readouterr().err == ""


def test_cruns_log_destinations(tmp_path: Path) -> None:
    assert report.log_path(invocation(f"file:{tmp_path}/l")) == f"{tmp_path}/l"
    assert report.log_path(invocation("journald:x")) == ""
    assert report.log_path(invocation("syslog:x")) == ""


def test_colours_on_a_terminal() -> None:
    """As logrus on a terminal: what a person who types the command sees."""
    ours, theirs = os.openpty()
    try:
        program = (
            "from clip_runc.runtime.argv import Invocation\n"
            "from clip_runc.runtime.report import report_error\n"
            "report_error(Invocation(), 'short')"
        )
        home = Path(__file__).resolve().parents[3]
        subprocess.run(
            ["/usr/bin/env", "python3", "-c", program], stderr=theirs, cwd=home, check=True
        )
        assert os.read(ours, 200) == b"\x1b[31mERRO\x1b[0m[0000] short" + b" " * 39 + b" \r\n"
    finally:
        os.close(ours)
        os.close(theirs)
