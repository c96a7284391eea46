"""Hashing what is on disk."""

from __future__ import annotations

import os
from pathlib import Path

from clip_runc.store import ChunkStore
from clip_runc.store.checking import check_layer
from tests.unit.store.conftest import BOOT, OTHER_BOOT, make_data, make_layer


class Nobody:
    """A registry that is not asked."""

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        raise AssertionError("asked")

    def stream(self, digest: str, size: int, start: int = 0) -> list[bytes]:  # type: ignore[override]
        raise AssertionError("asked")


def test_a_flipped_bit_is_found_and_forgotten(tmp_path: Path) -> None:
    data = make_data(300_000)
    layer, _ = make_layer(data)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert check_layer(fd, layer, BOOT) is None
    store = ChunkStore(fd, boot_id=BOOT)
    reader = store.open_layer(layer, lambda _: b"", Nobody())  # type: ignore[arg-type]
    for number, chunk in enumerate(layer.chunks):
        reader.put(number, data[chunk.raw_start : chunk.raw_end])
    store.close()
    count = len(layer.chunks)
    assert check_layer(fd, layer, BOOT) == [count, 0]
    assert check_layer(fd, layer, OTHER_BOOT) == [count, 0]
    with (tmp_path / layer.diff_hex / "data").open("r+b") as file:
        file.seek(70_000)
        old = file.read(1)
        file.seek(70_000)
        file.write(bytes([old[0] ^ 1]))
    assert check_layer(fd, layer, BOOT) == [count - 1, 1]
    assert check_layer(fd, layer, BOOT) == [count - 1, 0]
    os.close(fd)
