"""The record: what it says after damage, another boot, another file, and among threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.store.chunk_states import MISSING, PRESENT, SUSPECT
from clip_runc.store.record import ENTRY, HEADER, Record

GEOMETRY = bytes(range(32))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "record"


def open_record(path, chunks=10, geometry=GEOMETRY):
    return Record(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), geometry, chunks)


def fresh(path, chunks=10):
    record = open_record(path, chunks)
    record.reset(suspect=False)
    assert record.load("boot", 1) == (bytes((MISSING,)) * chunks, False)
    return record


def test_what_was_marked_is_present_in_the_same_boot_and_file_only(path):
    record = fresh(path)
    for chunk in (0, 3, 9):
        record.mark(chunk)
    states, complete = open_record(path).load("boot", 1)
    assert [n for n, state in enumerate(states) if state == PRESENT] == [0, 3, 9]
    assert states.count(MISSING) == 7 and not complete
    for boot, inode, geometry in (
        ("other", 1, GEOMETRY),
        ("boot", 2, GEOMETRY),
        ("boot", 1, bytes(32)),
    ):
        states, _ = open_record(path, geometry=geometry).load(boot, inode)
        assert [n for n, state in enumerate(states) if state == SUSPECT] == [0, 3, 9]
        assert PRESENT not in states


def test_an_entry_of_one_chunk_says_nothing_about_another(path):
    record = fresh(path)
    record.mark(2)
    content = bytearray(path.read_bytes())
    entry = content[HEADER + 2 * ENTRY : HEADER + 3 * ENTRY]
    content[HEADER + 5 * ENTRY : HEADER + 6 * ENTRY] = entry
    path.write_bytes(content)
    states, _ = open_record(path).load("boot", 1)
    assert states[2] == PRESENT and states[5] == SUSPECT


def test_clear_doubt_and_complete(path):
    record = fresh(path)
    for chunk in range(10):
        record.mark(chunk)
    assert open_record(path).load("boot", 1) == (bytes((PRESENT,)) * 10, False)
    record.mark_complete()
    assert open_record(path).load("boot", 1)[1]
    record.clear(4)
    states, complete = open_record(path).load("boot", 1)
    assert states[4] == MISSING and not complete
    record.doubt_all()
    states, complete = open_record(path).load("boot", 1)
    assert states == bytes((SUSPECT,)) * 4 + bytes((MISSING,)) + bytes((SUSPECT,)) * 5
    record.reset(suspect=True)
    assert open_record(path).load("boot", 1) == (bytes((SUSPECT,)) * 10, False)


def test_the_header_tells_another_layer_version_or_nothing(path):
    assert not open_record(path).matches()
    record = fresh(path)
    assert record.matches()
    assert not open_record(path, geometry=bytes(32)).matches()
    path.write_bytes(b"CLIPREC\x02" + path.read_bytes()[8:])
    assert not record.matches()


@settings(max_examples=200, deadline=None)
@given(
    damage=st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=30)), max_size=5),
    cut=st.integers(0, 300),
    marked=st.sets(st.integers(0, 9)),
)
def test_damage_never_makes_a_chunk_present_nor_an_exception(tmp_path_factory, damage, cut, marked):
    path = tmp_path_factory.getbasetemp() / "damaged-record"
    path.unlink(missing_ok=True)
    record = fresh(path)
    for chunk in marked:
        record.mark(chunk)
    content = bytearray(path.read_bytes())
    for at, noise in damage:
        content[at : at + len(noise)] = noise
    path.write_bytes(content[:cut])
    again = open_record(path)
    again.matches()
    states, complete = again.load("boot", 1)
    assert {n for n, state in enumerate(states) if state == PRESENT} <= marked
    assert not complete
    again.mark(1)  # also beyond the end of a file that was cut
    assert again.load("boot", 1)[0][1] == PRESENT


def test_threads_and_processes_do_not_lose_each_others_marks(path):
    fresh(path, 2000)
    records = [open_record(path, 2000) for _ in range(4)]
    for record in records:
        record.load("boot", 1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: records[n % 4].mark(n), range(2000)))
    assert open_record(path, 2000).load("boot", 1)[0] == bytes((PRESENT,)) * 2000
