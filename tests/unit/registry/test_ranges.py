from __future__ import annotations

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.registry.ranges import check_range, check_whole


def response(status: int, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


@pytest.mark.parametrize(
    ("status", "headers", "fine"),
    [
        (206, {"Content_Range": "bytes 5-9/100"}, True),
        (206, {"Content_Range": "bytes 5-9/*", "Content_Length": "5"}, True),
        (206, {"Content_Range": "bytes 5-9/100", "Content_Length": "6"}, False),
        (206, {"Content_Range": "bytes 5-8/100"}, False),
        (206, {"Content_Range": "bytes 4-9/100"}, False),
        (206, {"Content_Range": "bytes */100"}, False),
        (206, {"Content_Type": "multipart/byteranges; boundary=x"}, False),
        (206, {}, False),
        (206, {"Content_Range": "bytes 5-9/100", "Content_Encoding": "gzip"}, False),
        (206, {"Content_Range": "bytes 5-9/100", "Content_Encoding": "identity"}, True),
        (200, {"Content_Length": "5"}, False),
        (200, {"Content_Length": "10"}, False),
    ],
)
def test_range(status: int, headers: dict[str, str], fine: bool) -> None:
    assert (check_range(response(status, **headers), 5, 10, "x") is None) is fine


@pytest.mark.parametrize(("length", "fine"), [("10", True), ("11", False), ("", False)])
def test_200_will_do_for_a_range_that_is_the_whole(length: str, fine: bool) -> None:
    assert (check_range(response(200, Content_Length=length), 0, 10, "x") is None) is fine


@pytest.mark.parametrize(
    ("status", "headers", "fine"),
    [
        (200, {"Content_Length": "10"}, True),
        (200, {}, True),
        (200, {"Content_Length": "11"}, False),
        (200, {"Content_Length": "10", "Content_Encoding": "zstd"}, False),
        (206, {"Content_Length": "10"}, False),
    ],
)
def test_whole(status: int, headers: dict[str, str], fine: bool) -> None:
    assert (check_whole(response(status, **headers), 10, "x") is None) is fine


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_header_is_judged(content_range: str, length: str) -> None:
    made = response(206)
    made.headers["Content-Range"] = content_range
    made.headers["Content-Length"] = length
    check_range(made, 5, 10, "x")
    check_whole(made, 10, "x")
