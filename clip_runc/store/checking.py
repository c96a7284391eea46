"""Hashing what is on disk of a layer, whatever was verified before."""

from __future__ import annotations

import os

from clip_runc.index.model import Layer
from clip_runc.store.chunk_states import MISSING
from clip_runc.store.geometry import Geometry
from clip_runc.store.record import Record

_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW


def check_layer(store_fd: int, layer: Layer, boot_id: str) -> list[int] | None:
    """How many chunks on disk are good, and how many bad; None where the layer is not there.

    None too where nobody knows what its stored bytes should hash to (``Layer.hashes_compressed``).
    Bad ones are struck from the record, and the data file is touched: who has it open then
    trusts nothing in it before it has hashed it again.
    """
    geometry = Geometry(layer)
    if layer.hashes_compressed:
        return None
    try:
        record_fd = os.open(f"{layer.diff_hex}/record", os.O_RDWR | _OPEN, dir_fd=store_fd)
    except FileNotFoundError:
        return None
    record = Record(record_fd, geometry.digest, len(geometry.starts))
    if not record.matches():
        return None
    data = os.open(f"{layer.diff_hex}/data", os.O_RDWR | _OPEN, dir_fd=store_fd)
    try:
        states, _ = record.load(boot_id, os.fstat(data).st_ino)
        good = bad = 0
        for chunk, state in enumerate(states):
            if state == MISSING:
                continue
            found = os.pread(data, geometry.length(chunk), geometry.starts[chunk])
            if geometry.holds(chunk, found):
                good += 1
            else:
                bad += 1
                record.clear(chunk)
        if bad:
            os.utime(data)
    finally:
        os.close(data)
    return [good, bad]
