import itertools

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.index.checkpoints import WINDOW, Cut, Cutter, Fixed, windows

STEPS = st.lists(st.tuples(st.integers(1, 20_000), st.integers(0, 80_000)), max_size=60)


def points_of(steps, start=80):
    bits = itertools.accumulate((bits for bits, _ in steps), initial=start)
    raws = itertools.accumulate((raw for _, raw in steps), initial=0)
    return list(zip(bits, raws, strict=True))


@given(steps=STEPS, batches=st.lists(st.integers(1, 10), max_size=20), target=st.integers(1, 5000))
def test_the_cuts_do_not_depend_on_when_points_become_known(steps, batches, target):
    points = points_of(steps)
    total = points[-1][1]
    assume(total)  # an empty stream has no chunk, whatever the cuts
    at_once = Cutter(target, 200_000)
    at_once.choose(points, total=total)

    bit_by_bit = Cutter(target, 200_000)
    taken: list[Cut] = []
    for known in itertools.accumulate(batches):
        decided = bit_by_bit.choose(points[:known])
        taken += bit_by_bit.take(decided)
    bit_by_bit.choose(points, total=total)
    taken += bit_by_bit.take(total)

    assert bit_by_bit.cuts == at_once.cuts == taken


@given(steps=STEPS, target=st.integers(1, 5000))
def test_cuts_are_points_with_room_for_a_window(steps, target):
    points = points_of(steps)
    total = points[-1][1]
    cutter = Cutter(target)
    cutter.choose(points, total=total)
    following = {}
    for (bit, raw), (_, after) in itertools.pairwise(
        [*(p for p in points if p[1] < total), (0, total)]
    ):
        following[Cut(raw, bit)] = after
    if total:
        assert cutter.cuts[0] == Cut(0, 80)
    for cut in cutter.cuts[1:]:
        assert following[cut] - cut.raw >= WINDOW
    assert [cut.raw for cut in cutter.cuts] == sorted({cut.raw for cut in cutter.cuts})


def test_target_and_maximum():
    dense = [(80 + i * 8000, i * 100_000) for i in range(101)]
    cutter = Cutter(4000)
    cutter.choose(dense, total=10_000_000)
    assert {b.bit - a.bit for a, b in itertools.pairwise(cutter.cuts)} == {32_000}

    hollow = [(80 + i, i * 1_000_000) for i in range(101)]
    cutter = Cutter(4000, max_raw=5_000_000)
    cutter.choose(hollow, total=100_000_000)
    assert {b.raw - a.raw for a, b in itertools.pairwise(cutter.cuts)} == {5_000_000}


@given(step=st.integers(1, 50), sizes=st.lists(st.integers(0, 60)))
def test_fixed_cuts(step, sizes):
    cutter = Fixed(step, plain=True)
    ends = list(itertools.accumulate(sizes, initial=0))
    cuts = [cut for start, end in itertools.pairwise(ends) for cut in cutter.within(start, end)]
    assert cuts == [Cut(raw, raw * 8) for raw in range(0, ends[-1], step)]


def gztool(points):
    import struct
    import zlib

    out = bytes(8) + b"gzipindx" + struct.pack(">QQ", len(points), len(points))
    for raw, offset, bits, window in points:
        packed = zlib.compress(window) if window else b""
        out += struct.pack(">QQII", raw, offset, bits, len(packed)) + packed
    return out


def test_windows_of_the_cuts():
    index = gztool([(0, 10, 0, b""), (9, 21, 3, b"a" * 100), (20, 30, 0, b"unused")])
    first, second = windows(index, [Cut(0, 80), Cut(9, 165)])
    assert first == b""
    assert zstandard.decompress(second) == b"a" * 100


def test_windows_that_are_not_there():
    index = gztool([(0, 10, 0, b"")])
    with pytest.raises(LayerFormatError, match="no window"):
        list(windows(index, [Cut(0, 81)]))
    for bad in (index[:-1], b"GZIDX" + index, b""):
        with pytest.raises(LayerFormatError):
            list(windows(bad, []))
