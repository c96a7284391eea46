import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import IndexFormatError
from clip_runc.index.model import Chunk, Layer
from clip_runc.index.prefetch import (
    MAX_LISTS,
    MAX_TEXT,
    PrefetchList,
    Range,
    Touch,
    choose,
    listed_bytes,
    make_list,
    merge,
    pack_prefetch,
    unpack_prefetch,
)

MIB = 1 << 20


def layer(count: int, size: int = MIB) -> Layer:
    chunks = tuple(
        Chunk(at * 2 * size, (at + 1) * 2 * size, at * size, (at + 1) * size, bytes(32))
        for at in range(count)
    )
    return Layer(
        "sha256:0", "sha256:1", "x", "none", "none", count * size, 2 * count * size, chunks
    )


LAYERS = (layer(40), layer(200), layer(3))


def test_neighbours_travel_together_and_each_chunk_once():
    touches = [Touch(0.1, 1, 7), Touch(0.0, 1, 6), Touch(0.2, 0, 3), Touch(0.3, 1, 6)]
    found = make_list(["python3", "-c", "x"], touches, LAYERS)
    assert found == PrefetchList(("python3", "-c", "x"), (Range(1, 6, 7), Range(0, 3, 3)))
    assert listed_bytes(found, LAYERS) == 3 * MIB


def test_what_is_wanted_first_is_not_put_behind_a_large_request():
    # one chunk at the end of a layer, wanted in the beginning, and the whole layer from there on
    touches = [Touch(n / 100, 1, n) for n in range(150)]
    touches += [Touch(0.005, 0, 30)]
    ranges = make_list(["x"], touches, LAYERS).ranges
    assert ranges[:2] == (Range(1, 0, 2), Range(0, 30, 30))
    assert [r.first for r in ranges if r.layer == 1] == sorted(
        r.first for r in ranges if r.layer == 1
    )
    sizes = [r.last - r.first + 1 for r in ranges]
    assert max(sizes) <= 32 and sum(sizes) == 151


def test_quiet_ends_a_phase_but_a_wait_is_not_quiet():
    touches = [Touch(0, 0, 1), Touch(1, 0, 2, until=9), Touch(10, 0, 3), Touch(20, 0, 4)]
    phases = {r.first: r.phase for r in make_list([], touches, LAYERS).ranges}
    assert phases == {1: 0, 4: 1}
    assert make_list([], touches, LAYERS).ranges[0] == Range(0, 1, 3, 0)


def test_nothing_was_read():
    assert make_list(["true"], [], LAYERS) == PrefetchList(("true",), ())


def test_a_command_gets_its_own_list_or_that_of_the_nearest_call():
    lists = [
        PrefetchList(("python3", "-c", "import torch"), ()),
        PrefetchList(("python3", "server.py"), ()),
        PrefetchList(("sh",), ()),
    ]
    assert choose(lists, ["python3", "server.py"]) is lists[1]
    assert choose(lists, ["python3", "-c", "import numpy"]) is lists[0]
    assert choose(lists, ["python3"]) is lists[0]
    assert choose(lists, ["ls"]) is None
    assert choose(lists, []) is None
    assert choose([], ["sh"]) is None


def test_a_new_list_replaces_that_of_the_same_command():
    old = [PrefetchList(("b",), (Range(0, 1, 1),)), PrefetchList(("a",), ())]
    assert merge(old, PrefetchList(("b",), ())) == [
        PrefetchList(("a",), ()),
        PrefetchList(("b",), ()),
    ]


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.integers(0, 2), st.integers(0, 199), st.floats(0, 100))
    ),
    st.lists(st.text(max_size=20), max_size=5),
)
def test_lists_survive_the_way_into_a_file(rows, command):
    touches = [Touch(a, b, c % len(LAYERS[b].chunks), d) for a, b, c, d in rows]
    made = make_list(command, touches, LAYERS)
    listed = [(r.layer, c) for r in made.ranges for c in range(r.first, r.last + 1)]
    assert sorted(listed) == sorted({(t.layer, t.chunk) for t in touches})
    assert [r.phase for r in made.ranges] == sorted(r.phase for r in made.ranges)
    assert unpack_prefetch(pack_prefetch([made]), LAYERS) == [made]


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=4)
            | st.dictionaries(st.sampled_from(["command", "ranges"]), x, max_size=2)
        ),
    ).map(lambda x: json.dumps(x).encode())
)
def test_anything_else_is_refused(data):
    try:
        found = unpack_prefetch(data, LAYERS)
    except IndexFormatError:
        return
    assert unpack_prefetch(pack_prefetch(found), LAYERS) == sorted(found)


def test_bounds():
    for rows in (
        [{"command": ["x" * (MAX_TEXT + 1)], "ranges": []}],
        [{"command": [], "ranges": []}] * (MAX_LISTS + 1),
        [{"command": [], "ranges": [[2, 0, 2, 0]] * 100}],
        [{"command": [], "ranges": [[0, 0, 0, -1]]}],
        [{"command": [1], "ranges": []}],
    ):
        with pytest.raises(IndexFormatError):
            unpack_prefetch(json.dumps(rows).encode(), LAYERS)
