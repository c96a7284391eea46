"""Platforms as image indexes write them: ``os/architecture[/variant]``.

Normalised as containerd's platforms package does: ``arm64`` means ``arm64/v8``, ``arm`` means
``arm/v7``, ``x86_64`` and ``aarch64`` are accepted.  Pure.
"""

from __future__ import annotations

import os
import re

from clip_runc.errors import InvalidReference

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "ppc64el": "ppc64le",
    "loongarch64": "loong64",
}
_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


def host_platform() -> str:
    """The platform of this machine."""
    machine = os.uname().machine.lower()
    variant = "/v6" if machine == "armv6l" else ""
    return normalise(f"linux/{machine}{variant}")


def normalise(text: str) -> str:
    """The one way to write a platform; variants that every processor of the kind has are left out.

    ``amd64`` alone means Linux.  Raises ``InvalidReference`` for what is no platform.
    """
    parts = text.lower().split("/")
    if len(parts) == 1:
        parts = ["linux", *parts]
    if len(parts) > 3 or not all(re.fullmatch(r"[a-z0-9_.-]{1,64}", part) for part in parts):
        raise InvalidReference(f"{text[:100]!r} is not a platform", "os/architecture[/variant]")
    system, architecture, variant = [*parts, ""][:3]
    architecture = _ARCHITECTURES.get(architecture, architecture)
    if re.fullmatch(r"[0-9]+", variant):
        variant = f"v{variant}"
    if variant == _VARIANTS.get(architecture):
        variant = ""
    return "/".join(part for part in (system, architecture, variant) if part)


def of_json(value: object) -> str | None:
    """The platform in a descriptor or an image config; ``None`` where there is none to run on.

    Attestations are listed as ``unknown/unknown`` (BuildKit, "Attestation storage").
    """
    if not isinstance(value, dict):
        return None
    parts = [value.get("os"), value.get("architecture"), value.get("variant") or ""]
    if not all(isinstance(part, str) for part in parts) or not parts[0] or not parts[1]:
        return None
    if "unknown" in parts:
        return None
    try:
        return normalise("/".join(part for part in parts if part))
    except InvalidReference:
        return None


def rank(wanted: str, offered: str) -> int | None:
    """How well ``offered`` (normalised) serves ``wanted``: 0 is best, ``None`` not at all.

    A processor runs what was made for an older variant of it: arm/v7 runs v6 and v5, amd64/v3
    runs v2 and v1.
    """
    if offered == wanted:
        return 0
    want, offer = (platform.split("/") for platform in (wanted, offered))
    if want[:2] != offer[:2]:
        return None
    have, need = (_level(parts) for parts in (want, offer))
    if have is None or need is None or need > have:
        return None
    return have - need


def _level(parts: list[str]) -> int | None:
    variant = parts[2] if len(parts) == 3 else _VARIANTS.get(parts[1], "")
    match = re.fullmatch(r"v([0-9]{1,3})", variant)
    return int(match[1]) if match else None
