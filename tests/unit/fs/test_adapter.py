"""What is between pyfuse3 and the view, with neither a mount nor a kernel."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pyfuse3
import pytest
import trio

from clip_runc.errors import RegistryUnreachable
from clip_runc.fs import adapter
from clip_runc.fs.view import Image, LayerFile, View, layer_ino

NAME = "cd" * 32


class Slow:
    """A reader that has nothing at hand."""

    size = 1024

    def __init__(self) -> None:
        self.asked: list[Future[bytes]] = []

    def chunk_at(self, offset: int) -> int:
        return offset // 4096

    def read_cached(self, offset: int, length: int) -> bytes | None:
        return None

    def request(self, offset: int, length: int) -> Future[bytes]:
        self.asked.append(Future())
        return self.asked[-1]


def operations(reader: Any) -> adapter.Operations:
    view = View()
    layers = [LayerFile(NAME, "ef" * 32, reader)]
    view.attach(Image("ab" * 32, 1, layers, lambda: b"no EROFS image"))
    return adapter.Operations(view, lambda: None)


async def answered(
    reader: Slow, act: Callable[[Future[bytes]], None], cancel: float = 5
) -> bytes | int | None:
    """Read 10 bytes; ``act`` upon the request in another thread; bytes, errno, or cancelled."""
    found: bytes | int | None = None
    with trio.move_on_after(cancel):
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                nonlocal found
                try:
                    found = await operations(reader).read(layer_ino(NAME), 0, 10)
                except pyfuse3.FUSEError as error:
                    found = error.errno

            nursery.start_soon(read)
            while not reader.asked:
                await trio.sleep(0)
            await trio.to_thread.run_sync(act, reader.asked[0])
    return found


def test_a_read_waits_for_another_thread() -> None:
    assert trio.run(answered, Slow(), lambda f: f.set_result(b"0123456789")) == b"0123456789"


@pytest.mark.parametrize(
    "error", [RegistryUnreachable("gone"), ZeroDivisionError(), OSError(5, "x")]
)
def test_failures_are_eio_and_one_line(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert trio.run(answered, Slow(), lambda f: f.set_exception(error)) == errno.EIO
    assert len(caplog.records) == 1
    assert "layer efef" in caplog.text


def test_a_cancelled_read_leaves_the_request_to_others() -> None:
    reader = Slow()
    assert trio.run(answered, reader, lambda f: None, 0.05) is None
    assert not reader.asked[0].cancelled()
    reader.asked[0].set_result(b"late")  # the loop has ended: nothing may be raised


def test_a_bad_index_is_eio() -> None:
    async def look() -> None:
        await operations(Slow()).lookup(3, b"ab" * 32, None)

    with pytest.raises(pyfuse3.FUSEError) as caught:
        trio.run(look)
    assert caught.value.errno == errno.EIO


def test_the_log_is_not_flooded() -> None:
    limit = adapter.RateLimit(seconds=0.05)
    assert limit.allow() == 0
    assert [limit.allow() for _ in range(5)] == [None] * 5
    import time

    time.sleep(0.06)
    assert limit.allow() == 5
