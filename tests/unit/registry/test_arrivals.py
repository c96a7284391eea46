"""Reads wait for much where much comes, and for a byte where little is left or comes slowly."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.registry import arrivals
from clip_runc.registry.arrivals import MANY, Arrivals
from clip_runc.registry.client import Registry
from clip_runc.registry.fake import FakeRegistry
from tests.unit.registry.conftest import DATA, DIGEST

Ends = tuple[socket.socket, socket.socket]


@contextmanager
def connection() -> Iterator[Ends]:
    """Both ends of a TCP connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as near,
    ):
        far, _ = server.accept()
        with far:
            near.settimeout(20)
            yield near, far


@pytest.fixture
def near() -> Iterator[socket.socket]:
    with connection() as (near, _):
        yield near


def low(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


class Clock:
    """``time.monotonic``, by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(arrivals.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def read(one: Arrivals, clock: Clock, count: int, seconds: float, left: int = 1 << 30) -> None:
    one.before(left)
    clock.now += seconds
    one.after(count)


def test_much_is_waited_for_once_it_is_known_to_come(near: socket.socket, clock: Clock) -> None:
    one = Arrivals(near)
    for _ in range(4):
        read(one, clock, MANY // 4, 0.001)
        assert low(near) == 1
    read(one, clock, MANY, 0.001)
    assert low(near) == MANY
    read(one, clock, 100, 0.001, left=2 * MANY - 1)
    assert low(near) == 1


def test_a_link_that_gets_slow_is_read_as_it_comes(near: socket.socket, clock: Clock) -> None:
    one = Arrivals(near)
    for _ in range(100):
        read(one, clock, MANY, 0.001)
    assert low(near) == MANY
    for _ in range(3):
        read(one, clock, MANY, 5.0)
    assert low(near) == 1
    for _ in range(30):
        read(one, clock, MANY, 0.001)
    assert low(near) == MANY


def test_a_slow_link_never_waits_for_much(near: socket.socket, clock: Clock) -> None:
    one = Arrivals(near)
    for _ in range(1000):
        read(one, clock, 1000, 0.01)
        assert low(near) == 1


@given(size=st.integers(0, 6 * MANY))
def test_every_body_ends_though_its_connection_stays_open(size: int) -> None:
    with connection() as (near, far):
        sender = threading.Thread(target=far.sendall, args=(bytes(size),))
        sender.start()
        one, left = Arrivals(near), size
        while left:
            one.before(left)
            piece = near.recv(min(left, MANY))
            assert piece
            one.after(len(piece))
            left -= len(piece)
        sender.join()
        assert low(near) == 1, "who uses the connection next waits for an answer's first byte"


def test_a_response_without_a_socket_is_read_all_the_same(clock: Clock) -> None:
    one = Arrivals(None)
    for _ in range(5):
        read(one, clock, MANY, 0.001)


def test_blobs_one_after_the_other(fake: FakeRegistry, connect: Callable[..., Registry]) -> None:
    registry, size = connect(fake), len(DATA)
    assert size >= 4 * MANY
    for _ in range(3):
        assert b"".join(registry.stream(DIGEST, size)) == DATA
        assert registry.read_range(DIGEST, 5, size - 3) == DATA[5:-3]
