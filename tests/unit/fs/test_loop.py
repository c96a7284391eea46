"""Timers, descriptors and children in one thread."""

from __future__ import annotations

import os
import time

from clip_runc.fs.loop import Loop
from clip_runc.linux.processes import in_child


def test_timers_in_their_order() -> None:
    loop, seen = Loop(), []
    loop.later(0.02, lambda: seen.append(2))
    loop.later(0.01, lambda: seen.append(1))
    loop.later(0.03, loop.stop)
    loop.run()
    assert seen == [1, 2]


def test_again_and_again() -> None:
    loop, seen = Loop(), []

    def tick() -> None:
        seen.append(time.monotonic())
        if len(seen) == 3:
            loop.stop()

    loop.every(0.01, tick)
    loop.run()
    assert len(seen) == 3


def test_the_output_and_the_end_of_a_child() -> None:
    loop = Loop()
    found: list[tuple[int, bytes]] = []

    def done(code: int, data: bytes) -> None:
        found.append((code, data))
        loop.stop()

    loop.output(*in_child(lambda: b"x" * 300_000), done)
    loop.run()
    assert found == [(0, b"x" * 300_000)]


def test_a_child_that_fails_says_so() -> None:
    loop, codes = Loop(), []

    def fail() -> bytes:
        raise SystemExit(3)

    def done(code: int, data: bytes) -> None:
        codes.append(code)
        loop.stop()

    loop.output(*in_child(fail), done)
    loop.run()
    assert codes == [1]


def test_unwatched_in_the_same_round_is_not_called() -> None:
    loop, seen = Loop(), []
    pipes = [os.pipe(), os.pipe()]

    def readable(mine: int, other: int) -> None:
        seen.append(mine)
        loop.unwatch(other)
        loop.stop()

    (a, to_a), (b, to_b) = pipes
    loop.watch(a, lambda: readable(a, b))
    loop.watch(b, lambda: readable(b, a))
    os.write(to_a, b"x")
    os.write(to_b, b"x")
    loop.run()
    for fd in (a, to_a, b, to_b):
        os.close(fd)
    assert len(seen) == 1
