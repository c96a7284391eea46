"""``create``, ``run`` and ``restore``: a root filesystem of ours under the bundle, then runc.

A bundle that names no image of ours, and one that runc will refuse anyhow, is not touched.
Whatever fails after something was prepared takes it down again before the error is told.
"""

from __future__ import annotations

import os
import time

from clip_runc.errors import BundleError, ClipError, NotFound
from clip_runc.images import lean
from clip_runc.runtime import noting, report
from clip_runc.runtime.cleanup import take_down
from clip_runc.runtime.execute import pass_through
from clip_runc.runtime.spec import (
    annotations_of,
    apply_all,
    asks_for_more,
    cgroup_of,
    edits_for,
    label_of,
    namespace_of,
    wants_nosuid,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings
    from clip_runc.containers.bundle import Config
    from clip_runc.containers.prepare import Prepared
    from clip_runc.images.local import LocalImage
    from clip_runc.images.resolve import Resolved
    from clip_runc.runtime.argv import Invocation


class Phases:
    """Milliseconds by name, for the one line that a container gets in the log."""

    def __init__(self) -> None:
        self.spent: dict[str, str] = {}
        self._last = time.perf_counter()

    def end(self, name: str) -> None:
        """The phase ``name`` began where the one before it ended."""
        now = time.perf_counter()
        self.spent[f"{name}_ms"] = f"{(now - self._last) * 1000:.1f}"
        self._last = now


def create(invocation: Invocation, real: str, root: str, launcher: str) -> None:
    """Prepare the bundle and become runc; returns where the bundle is none of ours.

    Raises ``ClipError``; the bundle is then as it was and nothing is mounted.
    """
    from clip_runc.containers.bundle import open_bundle

    try:
        bundle = open_bundle(invocation.bundle)
    except BundleError:
        return  # runc says it better
    try:
        _create(invocation, real, root, launcher, bundle)
    except ClipError as error:
        noting.failed(invocation.id, error)
        raise
    finally:
        os.close(bundle)


def _create(invocation: Invocation, real: str, root: str, launcher: str, bundle: int) -> None:
    from clip_runc.containers.bundle import read_config, revive
    from clip_runc.runtime.plain_config import load_settings

    phases = Phases()
    try:
        config = read_config(bundle)
    except BundleError:
        if not revive(load_settings(), bundle):
            return
        config = read_config(bundle)
    settings = load_settings()
    resolved = _resolve(settings, config, bundle)
    image = _image_of(settings, resolved, invocation)
    phases.end("resolve")
    if image is None or os.path.lexists(f"{root}/{invocation.id}"):
        return  # an id in use is the runtime's to refuse, in its own words
    if asks_for_more(config.spec):
        from clip_runc.runtime.too_old import refuse

        refuse(settings, real, config.spec)
    prepared = _prepare(settings, config, image, invocation, root, bundle)
    creator = prepared.state.creator
    try:
        phases.end("mount")
        said = _words(resolved, prepared)
        prepared.state.start = {**said, **phases.spent}
        try:
            _rewrite(settings, prepared, bundle, launcher)
        except BundleError as error:
            if resolved.explicit:
                raise
            take_down(settings, prepared.key, creator)
            _not_lazy(settings, invocation, resolved.reference, str(error))
            return
        phases.end("rewrite")
        _log(settings, invocation, real, said, phases)
        _watch(settings, prepared, invocation, root)
        pass_through(real)
    except BaseException as error:
        take_down(settings, prepared.key, creator)
        if isinstance(error, OSError):
            raise ClipError(f"{error.filename or real}: {error.strerror}") from None
        raise


def _resolve(settings: Settings, config: Config, bundle: int) -> Resolved:
    from clip_runc.containers.bundle import root_path
    from clip_runc.images.resolve import resolve

    root = os.path.join(os.readlink(f"/proc/self/fd/{bundle}"), root_path(config.spec))
    return resolve(settings, annotations_of(config.spec), root)


def _image_of(settings: Settings, resolved: Resolved, invocation: Invocation) -> LocalImage | None:
    """The image to use, made now if that is the policy; None to pass through."""
    if resolved.action not in ("build", "pull"):
        if resolved.image is None and resolved.explicit:
            _not_lazy(settings, invocation, resolved.reference, resolved.why)
        return resolved.image
    from clip_runc.images.request import build

    only_pull = resolved.action == "pull"
    policy = settings.explicit_policy if resolved.explicit else settings.implicit_policy
    try:
        if only_pull:
            return build(settings, resolved.reference, only_pull=True)
        return build(settings, resolved.reference)
    except ClipError as error:
        if policy == "fail" or (resolved.explicit and policy == "build"):
            raise
        if only_pull and not resolved.explicit and isinstance(error, NotFound):
            return None  # nobody has said that it has an index
        # an ordinary container of the node must go on working
        _not_lazy(settings, invocation, resolved.reference, str(error))
        return None


def _not_lazy(settings: Settings, invocation: Invocation, reference: str, why: str) -> None:
    """An image was expected to be lazy, and the container starts from its bundle."""
    what = why if reference in why else f"{reference}: {why}"
    report.log(invocation, "warning", f"clip-runc: not lazy: {what}")
    noting.not_lazy(settings, invocation.id, reference, why)


def _prepare(
    settings: Settings,
    config: Config,
    image: LocalImage,
    invocation: Invocation,
    root: str,
    bundle: int,
) -> Prepared:
    from clip_runc.containers.key import key
    from clip_runc.containers.prepare import prepare
    from clip_runc.images.command import arguments_of

    return prepare(
        settings,
        key(root, invocation.id),
        image,
        nosuid=wants_nosuid(annotations_of(config.spec), settings.nosuid),
        root=root,
        container_id=invocation.id,
        bundle=os.readlink(f"/proc/self/fd/{bundle}"),
        cgroup=cgroup_of(config.spec),
        command=arguments_of(config.spec),
        namespace=namespace_of(config.spec),
        label=label_of(config.spec),
        restored=invocation.command == "restore",
    )


def _rewrite(settings: Settings, prepared: Prepared, bundle: int, launcher: str) -> None:
    from clip_runc.containers.bundle import rewrite
    from clip_runc.runtime.hook import arguments_for, find_hook

    hook = find_hook(settings, launcher)
    arguments = arguments_for(settings, prepared.key, prepared.state.creator)
    edits = edits_for(prepared.rootfs, hook, arguments, prepared.state.start)
    rewrite(settings, prepared.state, bundle, lambda spec: apply_all(edits, spec))


def _words(resolved: Resolved, prepared: Prepared) -> dict[str, str]:
    """How the container is started: in the log, in its state, in ``clipctl ps``."""
    return {
        "digest": f"sha256:{prepared.state.image}",
        "image": resolved.reference,
        "source": resolved.why,
        "mode": prepared.mode,
        "layers": prepared.layers,
    }


def _log(
    settings: Settings, invocation: Invocation, real: str, said: dict[str, str], phases: Phases
) -> None:
    """crun's log has errors only, and podman reads it as one JSON document."""
    fields = {"container": invocation.id, **said}
    noting.started(settings, fields, phases.spent)
    if not os.path.basename(real).startswith("crun"):
        line = "clip-runc: root filesystem mounted"
        report.log(invocation, "info", line, {**fields, **phases.spent})


def _watch(settings: Settings, prepared: Prepared, invocation: Invocation, root: str) -> None:
    """Somebody has to see this process end: clipd where it runs, else one that we fork."""
    follow = invocation.command != "create"
    if _tell(settings, prepared, invocation, root, follow=follow):
        return
    from clip_runc.containers.state import known_to_runc
    from clip_runc.runtime import watcher

    def created() -> bool:
        return known_to_runc(root, invocation.id)

    def finish() -> object:
        return take_down(settings, prepared.key, prepared.state.creator, created)

    watcher.watch(created, finish, follow=follow)


def _tell(
    settings: Settings, prepared: Prepared, invocation: Invocation, root: str, *, follow: bool
) -> bool:
    from clip_runc.fs.watches import tell

    message = {
        "op": "watch",
        "key": prepared.key,
        "root": root,
        "container": invocation.id,
        "creator": prepared.state.creator,
        "follow": follow,
    }
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError:
        return False
    try:
        return tell(settings, lean.dumps(message), pidfd)
    finally:
        os.close(pidfd)
