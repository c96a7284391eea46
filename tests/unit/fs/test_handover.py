"""The word between an old supervisor and a new one."""

from __future__ import annotations

import json
import os
import sys

import pytest

from clip_runc.config import Settings
from clip_runc.errors import ServerError
from clip_runc.fs import handover
from clip_runc.fs.loop import Loop
from tests.integration.prerequisites import native


def offered(program: list[str], **payload: object) -> str:
    """What the old supervisor hears of a new one."""
    loop, heard = Loop(), []

    def loaded(problem: str) -> None:
        heard.append(problem)
        loop.stop()

    device, listener = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    try:
        message = {"op": "upgrade", "program": program, "payload": payload}
        handover.offer(loop, message, device, listener, loaded)
        loop.run()
    finally:
        os.close(device)
        os.close(listener)
    assert len(heard) == 1
    return heard[0]


def test_the_new_one_says_its_word() -> None:
    script = (
        "import json, os, sys; v = json.loads(sys.argv[1]); os.fstat(v['device']);"
        "os.fstat(v['listener']); assert v['mine'] == 1; os.write(v['successor'], b'loaded\\n')"
    )
    assert offered([sys.executable, "-c", script], mine=1) == ""


def test_one_that_ends_without_it_is_a_problem() -> None:
    assert "clipd.log" in offered([sys.executable, "-c", "pass"])


@native("the error of a posix_spawn")
def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ServerError, match="nowhere"):
        offered(["/nowhere/python"])


def test_a_request_names_code_and_settings() -> None:
    message = handover.request(Settings(read_timeout=7))
    program, payload = message["program"], message["payload"]
    assert isinstance(program, list)
    assert isinstance(payload, dict)
    assert program[-1] == "supervisor"
    assert payload["settings"] == {"read_timeout": 7}
    assert json.dumps(message)


def test_a_request_without_a_program_is_refused() -> None:
    with pytest.raises(ServerError):
        handover.offer(Loop(), {"op": "upgrade"}, 0, 1, lambda _: None)
