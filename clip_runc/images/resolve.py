"""From the annotations of a bundle to an index on this machine.

An annotation of ours is explicit: whoever wrote it wants this and gets an error where it cannot
be had.  The annotations of container engines are implicit: a node's ordinary containers carry
them too, so whatever is odd about one means that the bundle passes through untouched.
"""

from __future__ import annotations

import os
import stat

from clip_runc.config import ANNOTATION_IMAGE, ANNOTATION_INDEX
from clip_runc.errors import BundleError, ImageNotIndexed
from clip_runc.images import local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from clip_runc.config import Settings
    from clip_runc.images.local import LocalImage

USE, BUILD, PULL, PASS = "use", "build", "pull", "pass"


class Resolved:
    """What to do with a bundle.

    ``action`` is ``USE`` (``image`` is set), ``BUILD`` (``reference`` has to be indexed first),
    ``PULL`` (an index beside it in its registry may be believed, but none is made) or ``PASS``;
    ``why`` says in words how it came to that.  ``explicit``: an annotation of ours.
    """

    __slots__ = ("action", "explicit", "image", "reference", "why")

    def __init__(
        self, action: str, image: LocalImage | None, reference: str, explicit: bool, why: str
    ) -> None:
        self.action = action
        self.image = image
        self.reference = reference
        self.explicit = explicit
        self.why = why


def resolve(
    settings: Settings, annotations: Mapping[str, object], bundle_root: str = ""
) -> Resolved:
    """Decide by ``annotations``: those of ours first, then ``Settings.image_annotations`` in order.

    Raises for explicit ones only: ``InvalidReference`` (a local path, ``oci:``…),
    ``IndexFormatError``, ``BundleError``, and ``ImageNotIndexed`` where the policy is to fail;
    an implicit one raises that as well if ``implicit_policy`` says so.  ``bundle_root`` is the
    bundle's own root filesystem: where that of a stub image is, its index comes before names.
    """
    index = annotations.get(ANNOTATION_INDEX)
    if index is not None:
        image = _index_file(settings, _text(ANNOTATION_INDEX, index))
        return Resolved(USE, image, str(index), True, f"annotation {ANNOTATION_INDEX}")
    named = annotations.get(ANNOTATION_IMAGE)
    if named is not None:
        return _explicit(settings, _text(ANNOTATION_IMAGE, named))
    return _implicit(settings, annotations, bundle_root)


def _text(annotation: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BundleError(f"annotation {annotation} = {value!r}", "it has to be a string")
    return value


def _index_file(settings: Settings, path: str) -> LocalImage:
    """The image of an index file that an administrator put on this machine."""
    if not path.startswith("/"):
        raise BundleError(f"annotation {ANNOTATION_INDEX} = {path!r}", "name an absolute path")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        message = f"annotation {ANNOTATION_INDEX}: {path}: {error.strerror}"
        raise BundleError(message, "make the file with clipctl index -o") from None
    try:
        status = os.fstat(fd)
        _refuse_strangers(path, status)
        # Known by what stat says of it, as make(1) does: no hash of some megabytes each time.
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
        alias = f"file:{path} {status.st_dev}:{status.st_ino} {status.st_size} {times}"
        image = local.find_alias(settings, alias)
        if image is None:
            from clip_runc.images.adding import add_open

            image = add_open(settings, fd, path, aliases=[alias])
        return image
    finally:
        os.close(fd)


def _refuse_strangers(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path}: not a regular file", f"{ANNOTATION_INDEX} names a .clip file")
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise BundleError(
            f"{path} can be written by others than root",
            f"chown root and chmod go-w the file that {ANNOTATION_INDEX} names",
        )


def _explicit(settings: Settings, reference: str) -> Resolved:
    image = local.find(settings, reference)
    why = f"annotation {ANNOTATION_IMAGE}"
    if image is not None:
        return Resolved(USE, image, reference, True, why)
    from clip_runc.registry.reference import Reference

    Reference.parse(reference)
    return _missing(settings, settings.explicit_policy, reference, True, why)


def _missing(settings: Settings, policy: str, reference: str, explicit: bool, why: str) -> Resolved:
    why = f"{why}: {reference} is not indexed here"
    from clip_runc.images.trust import may_pull

    if policy != "build" and may_pull(settings, local.normal_name(reference)):
        return Resolved(PULL, None, reference, explicit, why)
    if policy == "fail":
        raise ImageNotIndexed(
            f"{reference} is not indexed on this machine",
            f"run clipctl index {reference}, or set the policy to build",
        )
    return Resolved(BUILD if policy == "build" else PASS, None, reference, explicit, why)


def _implicit(settings: Settings, annotations: Mapping[str, object], bundle_root: str) -> Resolved:
    image = _stub(settings, bundle_root)
    if image is not None:
        return Resolved(USE, image, _first_name(settings, annotations), False, "a stub image")
    first = ("", "")
    for annotation in settings.image_annotations:
        reference = annotations.get(annotation)
        if not isinstance(reference, str) or not reference:
            continue
        image = local.find(settings, reference)
        if image is not None:
            return Resolved(USE, image, reference, False, f"annotation {annotation}")
        if not first[0] and _could_be_built(reference):
            first = (reference, annotation)
    if not first[0]:
        where = f" of {bundle_root}" if bundle_root else ""
        return Resolved(PASS, None, "", False, f"no annotation{where} names an image of ours")
    reference, annotation = first
    return _missing(
        settings, settings.implicit_policy, reference, False, f"annotation {annotation}"
    )


def _stub(settings: Settings, bundle_root: str) -> LocalImage | None:
    if not bundle_root or not os.path.lexists(f"{bundle_root}/.clip/index.clip"):
        return None
    from clip_runc.images.stub import find

    return find(settings, bundle_root)


def _first_name(settings: Settings, annotations: Mapping[str, object]) -> str:
    names = (annotations.get(annotation) for annotation in settings.image_annotations)
    return next((name for name in names if isinstance(name, str) and name), "")


def _could_be_built(reference: str) -> bool:
    """A name with a repository in it: ``latest``, which OCI layouts use, is no image."""
    if "/" not in reference:
        return False
    from clip_runc.errors import InvalidReference
    from clip_runc.registry.reference import Reference

    try:
        Reference.parse(reference)
    except InvalidReference:
        return False
    return True
