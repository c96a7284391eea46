import threading

import pytest

from clip_runc.errors import LayerFormatError
from clip_runc.images.side_by_side import Stopped, Work, side_by_side

SECONDS = 20


class Watch:
    """Works that say which ran beside which."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = set()
        self.begun = []
        self.most = 0

    def work(self, name, names, size, meet=None):
        names = frozenset(names)

        def run(stop):
            with self.lock:
                assert not any(names & other for other in self.running), "at one place"
                self.running.add(names)
                self.begun.append(name)
                self.most = max(self.most, len(self.running))
            if meet is not None:
                meet.wait(SECONDS)
            with self.lock:
                self.running.remove(names)
            return name

        return Work(names, size, run)


def test_results_are_in_order_and_the_longest_begins():
    watch = Watch()
    works = [watch.work(n, {f"blob{n}", f"diff{n}"}, size) for n, size in enumerate([5, 90, 7, 1])]
    assert side_by_side(works, 2) == [0, 1, 2, 3]
    assert set(watch.begun[:2]) == {1, 2}
    assert watch.most <= 2


def test_two_run_at_a_time():
    watch, meet = Watch(), threading.Barrier(2)
    works = [watch.work(n, {f"blob{n}"}, 1, meet) for n in range(6)]
    assert side_by_side(works, 2) == list(range(6))
    assert watch.most == 2


def test_what_would_write_to_one_place_comes_one_after_the_other():
    watch = Watch()
    names = [{"a", "x"}, {"b", "x"}, {"a", "y"}, {"c", "y"}, {"d", "z"}, {"a", "z"}]
    for _ in range(50):
        works = [watch.work(n, both, n) for n, both in enumerate(names)]
        assert side_by_side(works, 3) == list(range(6))


def test_one_work_needs_no_thread():
    where = []
    side_by_side([Work(frozenset(), 1, lambda stop: where.append(threading.current_thread()))], 2)
    assert where == [threading.current_thread()]
    assert side_by_side([], 2) == []


def test_the_rest_stops_when_one_fails_and_the_reason_is_told():
    failed, given = threading.Event(), []

    def fails(stop):
        failed.set()
        raise LayerFormatError("broken")

    def endless(stop):
        def pieces():
            failed.wait(SECONDS)
            while True:
                given.append(b"x")
                yield b"x"

        for _ in stop.until(pieces()):
            continue

    works = [Work(frozenset({n}), 1, run) for n, run in (("a", endless), ("b", fails))]
    later = Work(frozenset("c"), 0, lambda stop: pytest.fail("began after the failure"))
    with pytest.raises(LayerFormatError, match="broken"):
        side_by_side([*works, later], 2)
    assert given
    assert threading.active_count() == 1


def test_of_two_that_fail_the_first_in_order_is_told():
    meet = threading.Barrier(2)

    def fails(name):
        def run(stop):
            meet.wait(SECONDS)
            raise LayerFormatError(name)

        return run

    works = [Work(frozenset({n}), size, fails(n)) for n, size in (("first", 1), ("second", 2))]
    for _ in range(20):
        with pytest.raises(LayerFormatError, match="first"):
            side_by_side(works, 2)


def test_stopped_is_told_where_there_is_nothing_else():
    def stopped(stop):
        stop.set()
        list(stop.until(iter([b"x"])))

    with pytest.raises(Stopped):
        side_by_side([Work(frozenset(), 1, stopped), Work(frozenset(), 1, stopped)], 1)
