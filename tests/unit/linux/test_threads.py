"""Which thread goes first: seen at a thread's own priority."""

from __future__ import annotations

import os
import threading

from clip_runc.linux.threads import give_way


def test_one_thread_gives_way_and_the_others_do_not() -> None:
    found: list[int] = []

    def work() -> None:
        give_way()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [min(before + 10, 19)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
