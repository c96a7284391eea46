"""containerd's and podman's configuration: is clip-runc a runtime there?"""

from __future__ import annotations

import glob
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

from clip_runc import personal
from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.config import Settings, is_personal
from clip_runc.runtime.launcher import is_launcher

CONTAINERD = "/etc/containerd/config.toml"
PODMAN = (
    "/usr/share/containers/containers.conf",
    "/etc/containers/containers.conf",
    "/etc/containers/containers.conf.d/*.conf",
)
# The CRI plugin's part of the configuration, by containerd's configuration version.
CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
ANNOTATIONS = "dev.clip-runc.*"


def check(settings: Settings, root: str = "") -> list[Finding]:
    """One or two lines for each engine that is here.  ``root`` stands before every path."""
    found = []
    if not is_personal() and (shutil.which("containerd") or os.path.exists(root + CONTAINERD)):
        found += _containerd(root)
    if shutil.which("podman"):
        found += _podman(root)
    return found


def _containerd(root: str) -> list[Finding]:
    hint = "clipctl install --containerd makes it one"
    try:
        documents = containerd_documents(root + CONTAINERD)
    except (OSError, ValueError) as error:
        return [Finding(FAIL, "containerd", f"{root + CONTAINERD}: {error}", "mend the file")]
    found: list[Finding] = []
    for document in documents:
        for name, runtime in runtimes(document).items():
            binary = str(_table(runtime, "options").get("BinaryName", ""))
            if not is_launcher(root + binary) and os.path.basename(binary) != "clip-runc":
                continue
            found.append(_handler(name, binary, runtime, root))
    if found:
        return found
    return [Finding(WARN, "containerd", "clip-runc is no runtime handler of it", hint)]


def _handler(name: str, binary: str, runtime: dict[str, Any], root: str) -> Finding:
    text = f"handler {name!r} is {binary}"
    if not os.access(root + binary, os.X_OK):
        return Finding(FAIL, "containerd", f"{text}, which cannot be run", "clipctl install")
    passed = runtime.get("container_annotations")
    if not isinstance(passed, list) or ANNOTATIONS not in passed:
        hint = f"container_annotations = [{ANNOTATIONS!r}] there"
        return Finding(WARN, "containerd", f"{text}, and annotations do not get to it", hint)
    return Finding(OK, "containerd", text)


def containerd_documents(path: str) -> list[dict[str, Any]]:
    """The configuration with those that it imports; none where there is no file.

    Raises ``OSError``, ``ValueError``.
    """
    try:
        document = tomllib.loads(Path(path).read_text())
    except FileNotFoundError:
        return []
    found = [document]
    imports = document.get("imports")
    for pattern in imports if isinstance(imports, list) else []:
        for name in sorted(glob.glob(os.path.join(os.path.dirname(path), str(pattern)))):
            found.append(tomllib.loads(Path(name).read_text()))
    return found


def runtimes(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The runtime handlers of CRI, whichever version the document is of."""
    plugins = _table(document, "plugins")
    found: dict[str, dict[str, Any]] = {}
    for plugin in CRI.values():
        table = _table(_table(_table(plugins, plugin), "containerd"), "runtimes")
        found.update({k: v for k, v in table.items() if isinstance(v, dict)})
    return found


def _table(value: dict[str, Any], name: str) -> dict[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


def _podman(root: str) -> list[Finding]:
    paths: list[str] = []
    patterns = [root + pattern for pattern in PODMAN]
    hint = "clipctl install --podman, or podman --runtime /usr/local/bin/clip-runc"
    if is_personal():
        own = f"{personal.config_home()}/containers/containers.conf"
        patterns += [own, f"{own}.d/*.conf"]
        hint = f'clip-runc = ["/usr/local/bin/clip-runc"] below [engine.runtimes] in {own}'
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            try:
                document = tomllib.loads(Path(path).read_text())
            except (OSError, ValueError) as error:
                return [Finding(FAIL, "podman", f"{path}: {error}", "mend the file")]
            named = _table(_table(document, "engine"), "runtimes").get("clip-runc")
            paths += [str(one) for one in named] if isinstance(named, list) else []
    if not paths:
        return [Finding(WARN, "podman", "clip-runc is no runtime of it", hint)]
    usable = [path for path in paths if os.access(root + path, os.X_OK)]
    if not usable:
        return [Finding(FAIL, "podman", f"{paths[0]} cannot be run", "clipctl install")]
    return [Finding(OK, "podman", f"--runtime clip-runc is {usable[0]}")]
