"""Stub images: the config of an image and one small layer with its index.

A container engine pulls such an image in a moment, as any other; clip-runc finds the index in
its root filesystem (``images/stub.py``).  The data stay in the repository of the original.
"""

from __future__ import annotations

import gzip
import io
import json
import posixpath
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from clip_runc.config import Settings
from clip_runc.errors import InvalidReference
from clip_runc.images import stub
from clip_runc.images.artifact import local_index
from clip_runc.images.content import read_small
from clip_runc.images.explain import program
from clip_runc.images.make import Progress, index_image
from clip_runc.images.source import access_to, registry_at
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry import image as images
from clip_runc.registry import platforms
from clip_runc.registry.client import Registry
from clip_runc.registry.image import RegistryImage
from clip_runc.registry.reference import Reference

STUB_OF = "dev.clip-runc.stub-of"
_ACCOUNTS = (b"/etc/passwd", b"/etc/group")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Stub:
    """The stub of one platform.  ``size`` and ``source_size``: what a pull of each fetches."""

    platform: str
    digest: str
    source_digest: str
    size: int
    source_size: int


@dataclass(frozen=True)
class Published:
    """What ``publish`` pushed."""

    source: str
    destination: str
    digest: str
    stubs: tuple[Stub, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def publish(
    settings: Settings,
    source: str,
    destination: str,
    *,
    wanted: Sequence[str] = (),
    progress: Progress | None = None,
) -> Published:
    """Push a stub of the image ``source`` as ``destination``.

    For all platforms of ``source``, or those ``wanted``; a single one becomes a plain image,
    several an image index.  Raises ``InvalidReference``, ``RegistryError``, and what indexing
    raises; nothing is tagged then.
    """
    named, target = Reference.parse(source), Reference.parse(destination)
    _refuse_targets(named, target)
    with registry_at(settings, named) as origin, registry_at(settings, target) as registry:
        data, kind, digest = origin.manifest()
        whole = images.is_index(kind)
        rows = _rows(data, wanted, str(named)) if whole else [(digest, None)]
        stubs, entries = [], []
        for row_digest, platform in rows:
            exact = named.with_digest(row_digest)
            with registry_at(settings, exact) as one:
                image = one.resolve(wanted[0] if wanted and not whole else None)
                body, made = _push_one(settings, registry, image, progress)
            stubs.append(made)
            entry = {"mediaType": images.OCI_MANIFEST, "digest": made.digest, "size": len(body)}
            entries.append({**entry, **({"platform": platform} if platform else {})})
        if len(stubs) == 1 and not whole:
            top, top_kind = body, images.OCI_MANIFEST
        else:
            index = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": entries}
            top, top_kind = _json(index), images.OCI_INDEX
        pushed = registry.push_manifest(top, top_kind)
    return Published(str(named), str(target), pushed, tuple(stubs))


def _refuse_targets(source: Reference, target: Reference) -> None:
    if target.digest:
        raise InvalidReference(f"{target}: a stub has a digest of its own", "give it a tag")
    if (source.name, source.tag) == (target.name, target.tag):
        raise InvalidReference(
            f"{target}: the stub would take the place of the image itself",
            "give it another tag or repository",
        )


def _rows(
    data: bytes, wanted: Sequence[str], what: str
) -> list[tuple[str, dict[str, object] | None]]:
    """Digest and platform object of what an image index lists, no attestations."""
    if wanted:
        chosen = [images.choose(data, platform, what)[0].digest for platform in wanted]
    else:
        chosen = []
    rows: list[tuple[str, dict[str, object] | None]] = []
    offered = []
    for entry in images.parse_json(data, what)["manifests"]:
        found = images.descriptor(entry, what)
        platform = platforms.of_json(entry.get("platform"))
        if platform is None or platform.startswith("unknown/"):
            continue
        offered.append(platform)
        if not wanted or found.digest in chosen:
            rows.append((found.digest, entry["platform"]))
    if not rows:
        raise images.no_such_platform(what, ", ".join(wanted) or "any", offered)
    return rows


def _push_one(
    settings: Settings, registry: Registry, image: RegistryImage, progress: Progress | None
) -> tuple[bytes, Stub]:
    what = f"{image.reference.name}@{image.manifest_digest}"
    annotations = images.parse_json(image.manifest, what).get("annotations")
    if isinstance(annotations, dict) and STUB_OF in annotations:
        raise InvalidReference(
            f"{what} is itself a stub, of {annotations[STUB_OF]}", "publish that one"
        )
    config = images.parse_json(image.config, what)
    layer = make_layer(_files(settings, image, config, what, progress))
    packed = gzip.compress(layer, 6, mtime=0)
    blob = registry.push_blob(packed)
    config["rootfs"] = {"type": "layers", "diff_ids": [images.digest_of(layer)]}
    config["history"] = [{"created_by": f"clipctl publish {what}"}]
    if config.get("created"):
        config["history"][0]["created"] = config["created"]
    stored = registry.push_blob(_json(config))
    manifest = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": {
            "mediaType": images.OCI_CONFIG,
            "digest": stored.digest,
            "size": stored.size,
        },
        "layers": [{"mediaType": images.OCI_LAYER_GZIP, "digest": blob.digest, "size": blob.size}],
        "annotations": {STUB_OF: what},
    }
    body = _json(manifest)
    digest = registry.push_manifest(body, images.OCI_MANIFEST, images.digest_of(body))
    original = sum(x.size for x in image.layers) + len(image.config) + len(image.manifest)
    size = blob.size + stored.size + len(body)
    return body, Stub(image.platform, digest, image.manifest_digest, size, original)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _files(
    settings: Settings,
    image: RegistryImage,
    config: dict[str, object],
    what: str,
    progress: Progress | None,
) -> dict[str, bytes | str]:
    """What the layer holds, by path: bytes of a file, or the target of a link."""
    with tempfile.TemporaryDirectory(prefix="clip-publish-", dir="/var/tmp") as directory:
        path = local_index(settings, image)
        if path is None:
            path = f"{directory}/index.clip"
            exact = str(image.reference.with_digest(image.manifest_digest))
            index_image(settings, exact, path, store=False, progress=progress)
        with ClipFile.open(path) as clip:
            index = io.BytesIO()
            clip.write_with_source(index, image.reference.name)
            access = access_to(settings, image.reference)
            accounts = read_small(clip, access, _ACCOUNTS, uid=settings.server_uid)
    files: dict[str, bytes | str] = {f"{stub.DIRECTORY}/{stub.FILE}": index.getvalue()}
    files |= {name.decode().lstrip("/"): data for name, data in accounts.items()}
    text = (
        f"This container's image is a stub of {what}: it holds an index and none of the files.\n"
        "It starts with the runtime clip-runc only. In Kubernetes that is the pod's "
        "runtimeClassName; with ctr, --runc-binary.\n"
    )
    explaining = program(image.platform.split("/")[1], text)
    if explaining is not None:
        files[f"{stub.DIRECTORY}/explain"] = explaining
        settings_of = config.get("config")
        for name in entry_points(settings_of if isinstance(settings_of, dict) else {}):
            _link(files, name)
    return files


def entry_points(config: dict[str, object]) -> list[str]:
    """Where a runtime would look for what the image starts, and the shell that people try."""

    def texts(key: str) -> list[str]:
        value = config.get(key)
        return [x for x in value if isinstance(x, str)] if isinstance(value, list) else []

    names = ["/bin/sh"]
    command = [*texts("Entrypoint"), *texts("Cmd")][:1]
    if command and "/" in command[0]:
        names.append(posixpath.join(str(config.get("WorkingDir") or "/"), command[0]))
    elif command:
        variable = next((x for x in [*texts("Env"), _PATH] if x.startswith("PATH=")), _PATH)
        first = next((x for x in variable[5:].split(":") if x.startswith("/")), "/bin")
        names.append(f"{first}/{command[0]}")
    return names


def _link(files: dict[str, bytes | str], path: str) -> None:
    """Let the explanation be found at ``path``, unless that is taken or below a file."""
    name = posixpath.normpath(f"/{path}").strip("/")
    taken = any(name == x or name.startswith(f"{x}/") or x.startswith(f"{name}/") for x in files)
    if name and not taken and name.isprintable():  # no lone surrogates, which JSON may hold
        files[name] = f"/{stub.DIRECTORY}/explain"


def make_layer(files: dict[str, bytes | str]) -> bytes:
    """A tar stream of the files, their directories before them; the same for the same files."""
    out = io.BytesIO()
    directories: set[str] = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in files.items():
            parts = path.split("/")
            for end in range(1, len(parts)):
                parent = "/".join(parts[:end])
                if parent not in directories:
                    directories.add(parent)
                    info = tarfile.TarInfo(parent)
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(info)
            info = tarfile.TarInfo(path)
            info.mode = 0o755 if path == f"{stub.DIRECTORY}/explain" else 0o644
            if isinstance(content, str):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, content, 0o777
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()
