"""Which of a process's threads has the processor first where there are more than processors."""

from __future__ import annotations

import os
import threading

_LESS = 10
"""Steps of setpriority(2): a tenth of the share."""


def give_way() -> None:
    """Let the other threads of this process go before this one, for good."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _LESS)
