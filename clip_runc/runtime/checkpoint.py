"""``checkpoint``: what the container wrote stays for ``restore`` when the runtime destroys it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.runtime.argv import Invocation

_IMAGES = "checkpoint"  # as in runc's checkpoint.go


def before_checkpoint(invocation: Invocation, root: str) -> None:
    """Mark a container of ours before the runtime is given the command."""
    from clip_runc.containers import kept
    from clip_runc.containers import state as states
    from clip_runc.containers.key import key as key_of
    from clip_runc.runtime.plain_config import load_settings

    settings = load_settings()
    key = key_of(root, invocation.id)
    if states.load(settings, key) is not None and states.known_to_runc(root, invocation.id):
        images = invocation.images or _IMAGES
        kept.mark(settings, key, os.path.abspath(images))  # noqa: PTH100  # pathlib costs 8 ms
