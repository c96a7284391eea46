"""clipd with nothing to do: what it uses of the processor, and how often it wakes up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from clip_runc import OverlayMounter
from tests.integration.clip_machine import ClipMachine

SECONDS = 15.0
SETTLE = 6.0  # pages of the store are given back until then
WAKEUPS = 6.0
"""A second, of all threads: the supervisor asks the server once a second whether it lives, and
tells the keeper every other second that it does itself."""
SHARE = 0.002
"""Of one processor: what those beats cost on a slow one."""


class Usage:
    """Wakeups and seconds of CPU of processes since this was made."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._began = time.monotonic()
        self._before = self._now()

    def _now(self) -> tuple[int, float]:
        wakeups, nanoseconds = 0, 0
        for pid in self._pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                lines = (task / "status").read_text().splitlines()
                wakeups += sum(int(ln.split()[1]) for ln in lines if ln.startswith("voluntary"))
                nanoseconds += int((task / "schedstat").read_text().split()[0])
        return wakeups, nanoseconds / 1e9

    def rates(self) -> tuple[float, float]:
        """Wakeups a second, and the share of a processor."""
        wakeups, seconds = self._now()
        took = time.monotonic() - self._began
        return (wakeups - self._before[0]) / took, (seconds - self._before[1]) / took


def test_an_idle_clipd_sleeps(clip_with: Callable[..., ClipMachine], debian_ref: str) -> None:
    """An image is mounted, and something was read."""
    machine = clip_with(image_linger=300)
    with OverlayMounter(settings=machine.settings).mount(str(machine.index(debian_ref))) as mount:
        root = Path(mount.rootfs_path)
        assert (root / "etc/debian_version").read_text().startswith("12")
        status = machine.status()
        time.sleep(SETTLE)
        usage = Usage([status[role]["pid"] for role in ("supervisor", "keeper", "server")])
        time.sleep(SECONDS)
        wakeups, share = usage.rates()
    print(f"{wakeups:.1f} wakeups a second, {share:.3%} of a processor")
    assert wakeups < WAKEUPS
    assert share < SHARE
