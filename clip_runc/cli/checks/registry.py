"""A registry that the user names: does it answer, and does it take our credentials?"""

from __future__ import annotations

from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.config import Settings
from clip_runc.errors import ClipError, NotFound, Unauthorized
from clip_runc.registry.client import Registry
from clip_runc.registry.credentials import lookup
from clip_runc.registry.reference import Reference

# Asked for where only a host is named: whether the registry has it does not matter.
_PROBE = "clip-runc/doctor"
_SECONDS = 10.0


def check(settings: Settings, text: str) -> list[Finding]:
    """``text`` is a host, or a reference whose manifest is fetched."""
    host_only = "/" not in text.removeprefix("docker://")
    subject = f"registry {text}"
    try:
        reference = Reference.parse(f"{text}/{_PROBE}" if host_only else text)
        known = lookup(reference.registry, reference.repository, settings.credentials_dir)
    except ClipError as error:
        return [Finding(FAIL, subject, error.message, error.hint)]
    have = "with credentials of this machine" if known else "without credentials"
    registry = Registry(
        reference,
        credentials=known,
        plain_http=reference.registry in settings.plain_http,
        hosts_dirs=settings.hosts_dirs,
        timeout=_SECONDS,
        connect_timeout=_SECONDS,
        attempts=2,
    )
    try:
        with registry:
            registry.manifest()
    except NotFound as error:
        if host_only:
            return [Finding(OK, subject, f"answers, {have}")]
        return [Finding(FAIL, subject, error.message, error.hint)]
    except Unauthorized as error:
        return [_unauthorized(subject, error, host_only, have)]
    except ClipError as error:
        return [Finding(FAIL, subject, error.message, error.hint)]
    return [Finding(OK, subject, f"the manifest can be read, {have}")]


def _unauthorized(subject: str, error: ClipError, host_only: bool, have: str) -> Finding:
    login = "log in (docker login, podman login), or name a repository that you may read"
    if host_only:
        return Finding(WARN, subject, f"answers, but refuses a repository unknown to it {have}",
                       login)  # fmt: skip
    return Finding(FAIL, subject, f"{error.message}, {have}", error.hint or login)
