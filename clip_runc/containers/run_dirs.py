"""An ordinary user's run directories of mount namespaces that are gone.

Each namespace has one (``personal``), and nobody is there to tidy up when the last process has left
it: podman makes a new one after ``podman system migrate``, and an engine at each of its starts.
"""

from __future__ import annotations

import os
import shutil

from clip_runc import personal
from clip_runc.config import Settings
from clip_runc.containers import state as states
from clip_runc.linux.files import boot_id, lock


def remove_dead(settings: Settings) -> list[str]:
    """Remove those without a clipd and without a container in use; what was done, in words.

    The one of ``settings`` stays.  Where a namespace lives on, its directory is made again.
    """
    base = personal.run_base()
    try:
        names = [name for name in os.listdir(base) if name.startswith("mnt-")]
    except FileNotFoundError:
        return []
    boot = boot_id()
    used = [state.root_path for state in states.list_states(settings) if states.in_use(state, boot)]
    done = []
    for path in sorted(f"{base}/{name}" for name in names):
        if path == settings.run_dir or any(one.startswith(f"{path}/") for one in used):
            continue
        if _remove(path):
            done.append(f"run directory of a namespace that is gone, {os.path.basename(path)}")
    return done


def _remove(path: str) -> bool:
    """Under the locks that a clipd holds as long as it lives, and its starter until then."""
    try:
        with lock(f"{path}/locks/clipd-start", wait=False), lock(f"{path}/locks/clipd", wait=False):
            shutil.rmtree(path)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True
