import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.index.chunk_hash import BLAKE3, NAMES, SHA256, SIZE, hash_of, new_hash

# the first of the test vectors that BLAKE3's authors publish (test_vectors.json): no input
OF_NOTHING = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_they_are_what_their_names_say():
    assert hash_of(BLAKE3, b"").hex() == OF_NOTHING
    assert hash_of(SHA256, b"x") == hashlib.sha256(b"x").digest()


@pytest.mark.parametrize("name", sorted(NAMES))
@given(data=st.binary(max_size=300_000), at=st.integers(0, 300_000))
def test_in_pieces_or_at_once(name, data, at):
    state = new_hash(name)
    state.update(data[:at])
    state.update(memoryview(data)[at:])
    assert state.digest() == hash_of(name, memoryview(data))
    assert len(state.digest()) == SIZE
