"""The hash that a chunk is checked by: BLAKE3 where we cut the layer, SHA-256 where others did.

A chunk is hashed when its layer is indexed and each time that it was fetched; the layer's blob and
stream are hashed with SHA-256 all the same.  BLAKE3 takes all lanes of a vector unit for one
stream; ``bench/index layer`` has both side by side.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from blake3 import blake3

SHA256, BLAKE3 = "sha256", "blake3"
NAMES = frozenset((SHA256, BLAKE3))
SIZE = 32
"""Bytes of either."""


class Hash(Protocol):
    """What of a hash object is used."""

    def update(self, data: bytes | memoryview, /) -> object: ...
    def digest(self) -> bytes: ...


def new_hash(name: str) -> Hash:
    """An empty one of ``NAMES``."""
    return blake3() if name == BLAKE3 else hashlib.sha256()


def hash_of(name: str, data: bytes | memoryview) -> bytes:
    """``SIZE`` bytes."""
    found: bytes = (blake3(data) if name == BLAKE3 else hashlib.sha256(data)).digest()
    return found
