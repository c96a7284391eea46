"""The table of moves."""

from __future__ import annotations

import pytest

from clip_runc.store import chunk_states as cs


def test_every_move_is_allowed_or_refused_as_the_table_says():
    for old in cs.ALLOWED:
        for new in range(len(cs.NAMES)):
            states = cs.ChunkStates(bytes((old,)))
            if new in cs.ALLOWED[old]:
                states.move(0, new)
                assert states[0] == new
            else:
                with pytest.raises(cs.IllegalMove, match=f"chunk 0: {cs.NAMES[old]}"):
                    states.move(0, new)
            assert states.present == states.table.count(cs.PRESENT)


def test_every_state_can_be_left_and_reached_from_missing():
    reached, edge = {cs.MISSING}, [cs.MISSING]
    while edge:
        for new in cs.ALLOWED[edge.pop()] - reached:
            reached.add(new)
            edge.append(new)
    assert reached == set(cs.ALLOWED) and all(cs.ALLOWED.values())


def test_bytes_are_never_trusted_without_a_worker_having_verified_them():
    sources = {old for old, news in cs.ALLOWED.items() if cs.PRESENT in news}
    assert sources == {cs.CHECKING, cs.FETCHING}


def test_doubt_takes_trust_away_and_nothing_else():
    states = cs.ChunkStates(bytes(range(8)))
    states.doubt_all()
    expected = bytearray(range(8))
    expected[cs.PRESENT] = cs.SUSPECT
    assert states.table == expected and states.present == 0 and len(states) == 8
