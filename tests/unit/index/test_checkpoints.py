import itertools

from hypothesis import given
from hypothesis import strategies as st

from clip_runc.index.checkpoints import Cut, Fixed, gzip_limit


@given(start=st.integers(0, 1 << 40), target=st.integers(16, 1 << 26))
def test_a_gzip_chunk_ends_a_little_before_its_target_or_at_so_many_bytes(start, target):
    limit = gzip_limit(Cut(start, start * 8), target)
    assert limit.raw == start + min(target + target // 4, 8 << 20)
    assert target - target // 16 == (limit.bit - start * 8) / 8


@given(step=st.integers(1, 50), sizes=st.lists(st.integers(0, 60)))
def test_fixed_cuts(step, sizes):
    cutter = Fixed(step, plain=True)
    ends = list(itertools.accumulate(sizes, initial=0))
    cuts = [cut for start, end in itertools.pairwise(ends) for cut in cutter.within(start, end)]
    assert cuts == [Cut(raw, raw * 8) for raw in range(0, ends[-1], step)]
