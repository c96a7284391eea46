"""``delete``: the runtime deletes, and our part is taken down.

Here, before the exec, where that is certain to be right: a container that runc calls stopped, and
one that it is told to kill.  Then there is nothing left to do for the poststop hook, which
otherwise is a second start of the interpreter; and runc, which looks only ten times a second
whether what it killed has ended, finds that it has.  All others are left to the hook, which runs
inside the runtime's own delete, so nothing is left when that returns.

Two cases have no hook: a container that the runtime has forgotten already (``delete --force``
succeeds all the same), which is taken down here; and a hook that cannot be run any more, for which
a watcher stays behind until the runtime has ended.
"""

from __future__ import annotations

import os

from clip_runc.runtime.cleanup import take_down
from clip_runc.runtime.init_process import read_init

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
    hook = _hook(state)
    if not hook:
        if known():
            from clip_runc.runtime.watcher import watch

            watch(known, lambda: take_down(settings, key, state.creator, spare), follow=False)
        return
    init = read_init(root, invocation.id, hook)
    if init is not None and (init.has_ended() or (_will_kill(invocation) and init.kill())):
        take_down(settings, key, state.creator)


def _will_kill(invocation: Invocation) -> bool:
    """Is the runtime certain to kill the container, so that it may as well be done now?"""
    log = os.path.dirname(invocation.log) or "."
    return invocation.certain_force and (not invocation.log or os.path.isdir(log))


def _hook(state: State) -> str:
    """The hook that the container was made with; ``""`` where it cannot be run."""
    for hook in state.hooks.get("poststop", []):
        path = hook.get("path") if isinstance(hook, dict) else None
        if isinstance(path, str) and os.access(path, os.X_OK):
            return path
    return ""
