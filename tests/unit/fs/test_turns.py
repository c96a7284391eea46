from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from clip_runc.fs import turns
from clip_runc.fs.turns import Lock, Lowlevel, Trio


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_what_is_there_is_read_without_a_turn(pipe: tuple[int, int]) -> None:
    read, write = pipe

    async def main() -> None:
        os.write(write, b"x")
        low = Lowlevel()
        with trio.CancelScope() as scope:
            scope.cancel()  # whoever yields to the loop ends here
            await low.wait_readable(read)
            await low.wait_readable(read)
            scope.deadline = 0
            return
        raise AssertionError("it yielded")

    trio.run(main)


def test_what_is_not_there_is_waited_for(pipe: tuple[int, int]) -> None:
    read, write = pipe

    async def main() -> None:
        order: list[str] = []

        async def wait() -> None:
            await Lowlevel().wait_readable(read)
            order.append("readable")

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                order.append("written")
                os.write(write, b"x")
        assert order == ["written", "readable"]

    trio.run(main)


def test_where_one_came_soon_the_next_is_looked_for_longer(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = pipe
    monkeypatch.setattr(turns, "_SOON", 5)
    yielded = []

    async def other() -> None:
        await trio.lowlevel.checkpoint()
        yielded.append(True)

    async def main() -> None:
        low = Lowlevel()
        for _ in range(2):
            later = threading.Timer(0.1, os.write, (write, b"x"))
            later.start()
            await low.wait_readable(read)
            later.join()
            os.read(read, 1)
            yielded.append(False)

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(main)
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.15)
            nursery.start_soon(other)

    trio.run(both)
    assert yielded == [False, False, True], "the second one was waited for without a turn"


def test_where_none_comes_soon_nobody_looks_for_long(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = pipe
    monkeypatch.setattr(turns, "_SOON", 0.02)

    async def main() -> None:
        low = Lowlevel()
        for wait in (0.0, 0.2):  # the first comes soon, the second does not
            threading.Timer(wait, os.write, (write, b"x")).start()
            await low.wait_readable(read)
            os.read(read, 1)
        used = time.thread_time()
        threading.Timer(0.2, os.write, (write, b"x")).start()
        await low.wait_readable(read)
        assert time.thread_time() - used < 0.01

    trio.run(main)


def test_others_have_a_turn_all_the_same(pipe: tuple[int, int]) -> None:
    """Requests without an end must not keep the loop from those who wait for something else."""
    read, write = pipe

    async def main() -> None:
        os.write(write, b"x")
        low = Lowlevel()
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(1000):
                await low.wait_readable(read)
            nursery.cancel_scope.cancel()
        assert 5 < turns < 100

    trio.run(main)


def test_one_holds_the_lock_and_the_next_has_it_when_that_lets_go() -> None:
    async def main() -> None:
        lock, order = Lock(), []

        async def hold(name: str) -> None:
            async with lock:
                order.append(name)
                await trio.lowlevel.checkpoint()
                order.append(name)

        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(hold, name)
        assert order[::2] == order[1::2]
        assert sorted(order) == sorted("abcd" * 2)

    trio.run(main)


def test_who_is_cancelled_while_it_waits_leaves_the_lock_to_the_next() -> None:
    async def main() -> None:
        lock, had = Lock(), []

        async def take(name: str, scope: trio.CancelScope) -> None:
            with scope:
                async with lock:
                    had.append(name)

        first, second = trio.CancelScope(), trio.CancelScope()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery, lock:
                nursery.start_soon(take, "first", first)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(take, "second", second)
                await trio.testing.wait_all_tasks_blocked()
                first.cancel()
        assert had == ["second"]

    trio.run(main)


def test_everything_else_is_trio() -> None:
    facade = Trio()
    assert facade.open_nursery is trio.open_nursery
    assert facade.lowlevel.current_task is trio.lowlevel.current_task
