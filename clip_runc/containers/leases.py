"""Who uses an image mount: one empty file a container, ``<manifest hex>/<container key>``.

A lease is taken before the image is mounted and given back after the overlay is gone;
``images/mount.py`` unmounts only an image without leases, under the image's lock.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings

_ATTEMPTS = 100


def acquire(settings: Settings, manifest_hex: str, key: str) -> None:
    """Say that container ``key`` uses the image.  Twice is as good as once."""
    directory = f"{settings.lease_dir}/{manifest_hex}"
    for _ in range(_ATTEMPTS):
        try:
            fd = os.open(
                f"{directory}/{key}", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except FileNotFoundError:
            # also when the unmounting of the image removed it between the two calls
            os.makedirs(directory, 0o700, exist_ok=True)
        else:
            os.close(fd)
            return
    raise FileNotFoundError(f"{directory} is removed as fast as it is made")


def release(settings: Settings, manifest_hex: str, key: str) -> bool:
    """Give the lease back; False where there was none."""
    try:
        os.unlink(f"{settings.lease_dir}/{manifest_hex}/{key}")
    except FileNotFoundError:
        return False
    return True


def release_all(settings: Settings, key: str) -> int:
    """Give back every lease of ``key``, for a container whose state is lost."""
    try:
        images = os.listdir(settings.lease_dir)
    except FileNotFoundError:
        return 0
    return sum(release(settings, digits, key) for digits in images)


def users(settings: Settings) -> set[str]:
    """The keys of the containers that have a lease of any image."""
    try:
        images = os.listdir(settings.lease_dir)
    except FileNotFoundError:
        return set()
    found: set[str] = set()
    for digits in images:
        try:
            found.update(os.listdir(f"{settings.lease_dir}/{digits}"))
        except (FileNotFoundError, NotADirectoryError):
            continue  # released meanwhile
    return found


def idle_seconds(settings: Settings, manifest_hex: str, now: float) -> float:
    """How long the image has had no lease: 0 while it has one, infinity if it never had."""
    directory = f"{settings.lease_dir}/{manifest_hex}"
    try:
        if os.listdir(directory):
            return 0.0
        # the time of the directory is that of the last lease that was given back
        return max(0.0, now - os.stat(directory).st_mtime)
    except FileNotFoundError:
        return float("inf")
