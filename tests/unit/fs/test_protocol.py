"""Messages over a socket pair."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_runc import errors
from clip_runc.errors import IndexFormatError, MountFailed, ServerError
from clip_runc.fs import protocol

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    right.settimeout(5)
    with left, right:
        yield left, right


def test_a_message_comes_whole_with_its_descriptors(pair: Pair) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        protocol.send(pair[0], {"op": "attach", "n": 1}, [writing])
        os.close(writing)
        received = protocol.receive(pair[1])
        assert received is not None
        message, fds = received
        assert message == {"op": "attach", "n": 1}
        assert not os.get_inheritable(fds[0])
        os.write(fds[0], b"through")
        os.close(fds[0])
        assert pipe.read() == b"through"


def test_the_end_is_none(pair: Pair) -> None:
    pair[0].close()
    assert protocol.receive(pair[1]) is None


def test_what_is_too_long_is_not_sent(pair: Pair) -> None:
    with pytest.raises(ServerError, match="longer than"):
        protocol.send(pair[0], {"x": "y" * protocol.LIMIT})
    protocol.send(pair[0], {"x": "y" * (protocol.LIMIT - 20)})
    assert protocol.receive(pair[1]) is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=300))
def test_anything_else_is_an_error_of_ours(pair: Pair, data: bytes) -> None:
    pair[0].send(data)
    try:
        received = protocol.receive(pair[1])
    except ServerError:
        return
    assert received is not None
    assert isinstance(received[0], dict)


def test_deep_nesting_is_an_error_of_ours(pair: Pair) -> None:
    pair[0].send(b"[" * 100_000)
    with pytest.raises(ServerError):
        protocol.receive(pair[1])


def test_descriptors_of_a_bad_message_are_closed(pair: Pair) -> None:
    reading, writing = os.pipe()
    socket.send_fds(pair[0], [b"rubbish"], [writing])
    os.close(writing)
    with pytest.raises(ServerError):
        protocol.receive(pair[1])
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b""


@pytest.mark.parametrize("error", [IndexFormatError("a", "b"), MountFailed("c"), ServerError("d")])
def test_errors_keep_class_message_and_hint(error: errors.ClipError) -> None:
    with pytest.raises(type(error)) as caught:
        protocol.raise_error(protocol.error_message(error))
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)


@pytest.mark.parametrize("name", ["annotations", "__name__", "OSError", "nothing"])
def test_other_names_are_no_errors(name: str) -> None:
    with pytest.raises(ServerError):
        protocol.raise_error({"error": name, "message": "m"})


def test_the_peer_is_ourselves(pair: Pair) -> None:
    assert protocol.peer_uid(pair[0]) == os.geteuid()
