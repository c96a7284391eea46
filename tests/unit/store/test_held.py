"""The few chunks in memory."""

from __future__ import annotations

from clip_runc.store.held import Held


def test_those_that_were_read_longest_ago_go_first():
    held = Held(limit=100)
    assert [held.put("a", n, bytes(30)) for n in range(3)] == [[], [], []]
    assert held.get("a", 0) == bytes(30)
    assert held.put("a", 3, bytes(30)) == [("a", 1)]
    assert held.get("a", 1) is None
    assert held.put("b", 0, bytes(95)) == [("a", 2), ("a", 0), ("a", 3)]


def test_what_is_fetched_ahead_of_a_reader_fits():
    """Sixteen chunks of 1 MiB ahead of one reader, of another layer's, and what both read."""
    held = Held()
    for number in range(17):
        for owner in "ab":
            assert held.put(owner, number, bytes(1 << 20)) == []


def test_one_chunk_is_kept_whatever_its_size():
    held = Held(limit=100)
    assert held.put("a", 0, bytes(1000)) == []
    assert held.get("a", 0) == bytes(1000)
    assert held.put("a", 1, bytes(1)) == [("a", 0)]


def test_an_owner_can_be_dropped():
    held = Held(limit=100)
    held.put("a", 0, bytes(60))
    held.put("b", 0, bytes(30))
    held.drop_owner("a")
    assert held.get("a", 0) is None and held.get("b", 0) == bytes(30)
    assert held.put("b", 1, bytes(60)) == []
