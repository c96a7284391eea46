"""Mounting an index from a program, in the words of the Go library that this grew from."""

from __future__ import annotations

import os
import secrets
from types import TracebackType

from clip_runc.config import Settings, load
from clip_runc.containers import state as states
from clip_runc.containers.key import is_key, key
from clip_runc.containers.prepare import prepare
from clip_runc.containers.state import rootfs_path
from clip_runc.containers.teardown import teardown
from clip_runc.errors import BundleError, MountFailed
from clip_runc.images import local
from clip_runc.images.local import LocalImage
from clip_runc.linux.storage import refuse_unsuitable

_API_ROOT = "/clip-runc/api"


class Mount:
    """A mounted root filesystem, writable and private; what is written ends with ``unmount``.

    Use ``rootfs_path`` as the ``root.path`` of a bundle or otherwise; use the object with ``with``,
    or call ``unmount`` when done.
    """

    def __init__(self, settings: Settings, mount_key: str, mode: str) -> None:
        self._settings = settings
        self.key = mount_key
        self.mode = mode
        self.rootfs_path = rootfs_path(settings, mount_key)

    def unmount(self) -> None:
        """Unmount and remove everything.  Twice is all right.  Raises ``MountFailed``."""
        problems: list[str] = []
        teardown(self._settings, self.key, problems)
        if problems:
            raise MountFailed("; ".join(problems), "clipctl gc tries again")

    def __enter__(self) -> Mount:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unmount()

    def __repr__(self) -> str:
        return f"Mount({self.rootfs_path!r}, mode={self.mode!r})"


class OverlayMounter:
    """Mounts indexes as overlays.  Needs root.

    ``mount_base`` keeps indexes, fetched data and what is written; it must be on a disk: tmpfs
    (such as /dev/shm) and overlay raise ``StorageRefused``, because overlayfs on them, with FUSE
    below, is what "wandered into deleted directory" comes from.  ``rootfs_base`` holds mount
    points and sockets.  ``nosuid=False`` lets setuid programs work.  Other settings come from
    ``settings``, or else from the configuration file.
    """

    def __init__(
        self,
        mount_base: str | None = None,
        rootfs_base: str | None = None,
        *,
        nosuid: bool | None = None,
        settings: Settings | None = None,
    ) -> None:
        values = dict((settings or load()).__dict__)
        given = {"state_dir": mount_base, "run_dir": rootfs_base, "nosuid": nosuid}
        values.update({name: value for name, value in given.items() if value is not None})
        self.settings = Settings(**values)
        refuse_unsuitable(self.settings.state_dir)

    def mount(self, index: str | os.PathLike[str] | LocalImage, name: str | None = None) -> Mount:
        """Mount an index: the path of a ``.clip`` file, or an image of the local store.

        ``name`` makes the mount known under it (``open``, and ``gc`` keeps it until reboot); a
        second one of the same name raises ``BundleError``.
        """
        if not isinstance(index, LocalImage):
            index = local.add(self.settings, os.fspath(index))
        mount_key = _key_of(name or f"mount-{secrets.token_hex(8)}")
        prepared = prepare(self.settings, mount_key, index, nosuid=self.settings.nosuid)
        return Mount(self.settings, mount_key, prepared.mode)

    def open(self, name: str) -> Mount:
        """A mount that was made under ``name``, by whatever process.  Raises ``BundleError``."""
        mount_key = _key_of(name)
        state = states.load(self.settings, mount_key)
        if state is None or not is_key(mount_key):
            raise BundleError(f"no mount is named {name!r}")
        return Mount(self.settings, mount_key, state.mode)


def _key_of(name: str) -> str:
    """Names of mounts are apart from containers of any runtime: no root is called so."""
    return key(_API_ROOT, name)
