"""``delete``: the runtime deletes, its poststop hook takes our part down.

The hook runs inside the runtime's own delete, so nothing is left when it returns.  Two cases
have no hook: a container that the runtime has forgotten already (``delete --force`` succeeds all
the same), which is taken down here, before the exec; and a hook that cannot be run any more, for
which a watcher stays behind until the runtime has ended.
"""

from __future__ import annotations

import os

from clip_runc.runtime.cleanup import take_down

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.containers.state import State
    from clip_runc.runtime.argv import Invocation


def before_delete(invocation: Invocation, root: str) -> None:
    """What has to happen before the runtime is given the command."""
    from clip_runc.containers import state as states
    from clip_runc.containers.key import key as key_of
    from clip_runc.errors import ClipError
    from clip_runc.runtime.plain_config import load_settings

    try:
        settings = load_settings()
        key = key_of(root, invocation.id)
    except ClipError:  # settings that cannot be used must not keep anybody from deleting
        return
    if not states.exists(settings, key):
        return
    state = states.load(settings, key)
    if state is None:
        return  # another's, or damaged: gc's to judge

    def known() -> bool:
        return states.known_to_runc(root, invocation.id)

    def spare() -> bool:
        return known() or states.being_created(state)

    if not spare():
        take_down(settings, key, state.creator, spare)
        return
    if known() and not _has_hook(state):
        from clip_runc.runtime.watcher import watch

        watch(known, lambda: take_down(settings, key, state.creator, spare), follow=False)


def _has_hook(state: State) -> bool:
    """Can the hook that the container was made with be run?"""
    for hook in state.hooks.get("poststop", []):
        path = hook.get("path") if isinstance(hook, dict) else None
        if isinstance(path, str) and os.access(path, os.X_OK):
            return True
    return False
