"""How clipd's processes are started: ``python -I -S start.py <module> <JSON>``.

Isolated and without ``site``: neither the environment nor a ``.pth`` file nor the working
directory has a say.  The JSON holds ``paths`` (where this package and those that it needs
are), ``settings`` (those that are not defaults), and what the module itself wants.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings

_PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_NEEDED = "pyfuse3"
# What a process of ours may see of its starter's environment: nothing that steers the dynamic
# linker or Python (CVE-2025-23266), everything that finds registries and their passwords.
_ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "JOURNAL_STREAM",
    "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MALLOC = {"MALLOC_ARENA_MAX": "1"}
"""mallopt(3).  With an arena for each thread the server held 229 to 238 MB two seconds after a cold
start of torch, with one 88 to 108 MB (RSS, two starts each, not in turns, on a busy machine; their
times, 6.9 to 8.2 s and 7.5 to 8.2 s, say nothing about the cost)."""


def command(module: str, settings: Settings, paths: list[str], **values: object) -> list[str]:
    """The argv that runs ``clip_runc.fs.<module>.run(settings, paths, **values)``.

    A module with a dot in its name is one of another room.
    """
    payload = {"paths": paths, "settings": differences(settings), **values}
    interpreter = os.path.realpath(sys.executable)
    script = os.path.realpath(__file__)
    return [interpreter, "-I", "-S", script, module, json.dumps(payload, separators=(",", ":"))]


def differences(settings: Settings) -> dict[str, object]:
    """The settings that are not defaults."""
    from clip_runc.config import DEFAULTS

    return {k: getattr(settings, k) for k, v in DEFAULTS.items() if getattr(settings, k) != v}


def environment() -> dict[str, str]:
    """The part of our environment to hand on."""
    from clip_runc.config import is_personal

    found = {name: os.environ[name] for name in _ENVIRONMENT if os.environ.get(name)}
    places = {"HOME": "/root"}
    if is_personal():
        from clip_runc import personal

        places = {"HOME": personal.home(), "XDG_RUNTIME_DIR": personal.runtime_dir()}
    return {"PATH": _PATH, "LANG": "C.UTF-8", **places, **_MALLOC, **found}


def package_paths() -> list[str]:
    """Where this package is, and where third-party packages can be, in order.

    Those of our own ``sys.path`` first; where pyfuse3 is in none of them (we run with ``-S``),
    those that ``site`` would have found for this interpreter.
    """
    paths = [os.path.dirname(_PACKAGE)]
    paths += [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages")]
    if not any(os.path.isdir(f"{path}/{_NEEDED}") for path in paths):
        paths += [path for path in _site_paths() if os.path.isdir(f"{path}/{_NEEDED}")]
    return list(dict.fromkeys(os.path.realpath(path) for path in paths))


def _site_paths() -> list[str]:
    import site

    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    environment_dir = os.path.dirname(os.path.dirname(sys.executable))
    return [f"{environment_dir}/lib/{version}/site-packages", *site.getsitepackages()]


def main() -> None:
    """Run what ``command`` made."""
    module, payload = sys.argv[1], json.loads(sys.argv[2])
    sys.path.extend(payload["paths"])
    import importlib

    from clip_runc.config import Settings

    paths, settings = payload.pop("paths"), Settings(**payload.pop("settings"))
    name = module if "." in module else f"fs.{module}"
    importlib.import_module(f"clip_runc.{name}").run(settings, paths, **payload)


if __name__ == "__main__":
    main()
