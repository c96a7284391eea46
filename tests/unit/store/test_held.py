"""The few chunks in memory."""

from __future__ import annotations

from clip_runc.store.held import Held


def test_the_oldest_go_first_by_number_and_by_size():
    held = Held(chunks=3, limit=100)
    assert [held.put("a", n, bytes(10)) for n in range(3)] == [[], [], []]
    assert held.get("a", 0) == bytes(10)
    assert held.put("a", 3, bytes(10)) == [("a", 1)]
    assert held.get("a", 1) is None
    assert held.put("b", 0, bytes(95)) == [("a", 2), ("a", 0), ("a", 3)]


def test_one_chunk_is_kept_whatever_its_size():
    held = Held(chunks=3, limit=100)
    assert held.put("a", 0, bytes(1000)) == []
    assert held.get("a", 0) == bytes(1000)
    assert held.put("a", 1, bytes(1)) == [("a", 0)]


def test_an_owner_can_be_dropped():
    held = Held(chunks=3, limit=100)
    held.put("a", 0, bytes(60))
    held.put("b", 0, bytes(30))
    held.drop_owner("a")
    assert held.get("a", 0) is None and held.get("b", 0) == bytes(30)
    assert held.put("b", 1, bytes(60)) == []
