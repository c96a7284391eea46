"""What clipd's filesystem looks like; knows neither FUSE nor threads.

::

    /                      root only
    ├── layers/<file>      the uncompressed tar stream, padded with zeros to 512 bytes
    └── images/<manifest hex>/…  the whole image

Inode numbers are a function of what they name, so that a server that comes after another
understands what the kernel remembers:

========================  ==================================================================
1, 2, 3                   ``/``, ``layers``, ``images``
slot << 40 | nid          inode ``nid`` of the image that clipd gave this slot (from 1 up)
1 << 63 | 62 bits         a layer, by the first 62 bits of its file name
========================  ==================================================================

A layer's file is named by its diff_id *and* its chunks with their hashes (64 hexadecimal
digits): an index that lies about a layer then spoils no image but its own.  As long as all images
agree on a layer it is also found under its ``<diff hex>``.

A file handle is the inode number.  Errors are ``OSError`` with the errno to answer; anything
wrong with an index is ``IndexFormatError``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from clip_runc.errors import IndexFormatError
from clip_runc.index.erofs_read import ErofsImage
from clip_runc.index.model import BLOCK

ROOT, LAYERS, IMAGES = 1, 2, 3
SLOT_SHIFT = 40
MAX_SLOT = (1 << 22) - 1
_NID_MASK = (1 << SLOT_SHIFT) - 1
_LAYER_BIT = 1 << 63
_HOLE = -1
_HIDDEN = (b"trusted.overlay.", b"user.overlay.")


class Reader(Protocol):
    """What is needed of ``store.LayerReader``."""

    size: int

    def chunk_at(self, offset: int) -> int: ...
    def read_cached(self, offset: int, length: int) -> bytes | None: ...
    def request(self, offset: int, length: int) -> Future[bytes]: ...


class Attributes(NamedTuple):
    """What ``stat`` says; ``lasting``: the name will mean this inode for ever."""

    ino: int
    mode: int
    size: int = 0
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    mtime_ns: int = 0
    rdev: tuple[int, int] = (0, 0)
    lasting: bool = True


class Piece(NamedTuple):
    """``length`` bytes of a file: from a layer at ``offset``, or ``data`` as it is."""

    length: int
    reader: Reader | None = None
    offset: int = 0
    data: bytes = b""


class LayerFile(NamedTuple):
    """A layer of an image: its file's name in ``layers/``, the digits of its diff_id."""

    name: str
    diff_hex: str
    reader: Reader


class Image:
    """One attached image: its layers, and its tree once somebody asks for it."""

    def __init__(
        self,
        manifest_hex: str,
        slot: int,
        layers: Sequence[LayerFile],
        erofs: Callable[[], bytes],
    ) -> None:
        """``layers`` in the order of the image; one may come twice."""
        if not 1 <= slot <= MAX_SLOT:
            raise IndexFormatError(f"image slot {slot} is outside of 1–{MAX_SLOT}")
        self.manifest_hex = manifest_hex
        self.slot = slot
        self.layers = list(layers)
        self._erofs = erofs
        self._tree: tuple[ErofsImage, bytes] | None = None

    def tree(self) -> ErofsImage:
        """The metadata, decompressed at the first use."""
        return self._load()[0]

    def _load(self) -> tuple[ErofsImage, bytes]:
        if self._tree is None:
            data = self._erofs()
            image = ErofsImage(data)
            if image.devices > len(self.layers):
                raise IndexFormatError(
                    f"the EROFS image has {image.devices} devices, "
                    f"the image {len(self.layers)} layers"
                )
            self._tree = image, data
        return self._tree

    def ino(self, nid: int) -> int:
        """The inode number of ``nid``."""
        if not 0 <= nid <= _NID_MASK:
            raise IndexFormatError(f"inode {nid} has more than {SLOT_SHIFT} bits")
        return self.slot << SLOT_SHIFT | nid

    def attributes(self, nid: int) -> Attributes:
        """``stat`` of an inode of the image."""
        inode = self.tree().inode(nid)
        return Attributes(
            self.ino(nid),
            inode.mode,
            inode.size,
            inode.uid,
            inode.gid,
            inode.nlink,
            inode.mtime_ns,
            inode.rdev,
        )

    def pieces(self, nid: int, offset: int, length: int) -> list[Piece]:
        """Where the bytes of a file are, in order, without gaps, clipped to its size."""
        image, data = self._load()
        return [self._piece(data, *extent) for extent in image.extents(nid, offset, length)]

    def _piece(self, data: bytes, device: int, offset: int, length: int) -> Piece:
        if length < 0 or offset < 0:
            raise IndexFormatError(f"an extent of {length} bytes at {offset}")
        if device == _HOLE:
            return Piece(length)
        if device == 0:
            if offset + length > len(data):
                raise IndexFormatError(f"an extent ends {offset + length} bytes into the image")
            return Piece(length, data=bytes(data[offset : offset + length]))
        if device > len(self.layers):
            raise IndexFormatError(f"an extent lies on device {device}")
        layer = self.layers[device - 1]
        if offset + length > layer.reader.size:
            raise IndexFormatError(
                f"an extent ends at byte {offset + length} of layer {layer.diff_hex}"
            )
        return Piece(length, layer.reader, offset)


def layer_ino(name: str) -> int:
    """The inode number of the layer's file of that name."""
    return _LAYER_BIT | int(name[:16], 16) >> 2


def is_layer(ino: int) -> bool:
    """Is it the inode of a layer's file?"""
    return bool(ino & _LAYER_BIT)


class View:
    """The images that are attached, as one tree of inodes."""

    def __init__(self) -> None:
        self._images: dict[str, Image] = {}
        self._slots: dict[int, Image] = {}
        self._layers: dict[int, LayerFile] = {}

    # What there is.

    def attach(self, image: Image) -> None:
        """Add an image; one of the same manifest is replaced.  Raises ``IndexFormatError``."""
        for layer in image.layers:
            known = self._layers.get(layer_ino(layer.name), layer)
            if known.name != layer.name:
                raise IndexFormatError(f"{layer.name} and {known.name} share their first 62 bits")
        self._images[image.manifest_hex] = image
        self._find_layers()

    def detach(self, manifest_hex: str) -> None:
        """Forget an image, and the layers that no other image has."""
        self._images.pop(manifest_hex, None)
        self._find_layers()

    def _find_layers(self) -> None:
        self._slots = {image.slot: image for image in self._images.values()}
        layers = [layer for image in self._images.values() for layer in image.layers]
        self._layers = {layer_ino(layer.name): layer for layer in layers}

    def image(self, manifest_hex: str) -> Image | None:
        """The attached image of a manifest."""
        return self._images.get(manifest_hex)

    def images(self) -> list[Image]:
        """All attached images."""
        return list(self._images.values())

    # What the kernel asks.

    def attributes(self, ino: int) -> Attributes:
        """``stat``.  ESTALE for an image or layer that is not attached (any more)."""
        if ino in (ROOT, LAYERS, IMAGES):
            return Attributes(ino, stat.S_IFDIR | 0o700, nlink=2 if ino != ROOT else 4)
        if ino & _LAYER_BIT:
            return self._layer_attributes(ino)
        image, nid = self._inside(ino)
        return image.attributes(nid)

    def _layer_attributes(self, ino: int) -> Attributes:
        size = -(-self._layer(ino).reader.size // BLOCK) * BLOCK
        return Attributes(ino, stat.S_IFREG | 0o400, size)

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        """The child of that name; None if there is none and never will be; else ENOENT."""
        if parent == ROOT:
            if name not in (b"layers", b"images"):
                return None
            return self.attributes(LAYERS if name == b"layers" else IMAGES)
        if parent == LAYERS:
            return self._lookup_layer(name)
        if parent == IMAGES:
            return self._image_root(self._images.get(os.fsdecode(name)))
        image, nid = self._inside(parent)
        child = image.tree().lookup(nid, name)
        return None if child is None else image.attributes(child)

    def _lookup_layer(self, name: bytes) -> Attributes:
        text = os.fsdecode(name)
        for layer in self._layers.values():
            if layer.name == text:
                return self._layer_attributes(layer_ino(text))
        same = {layer.name for layer in self._layers.values() if layer.diff_hex == text}
        if len(same) != 1:
            raise _error(errno.ENOENT)
        return self._layer_attributes(layer_ino(same.pop()))._replace(lasting=False)

    def _image_root(self, image: Image | None) -> Attributes:
        if image is None:
            raise _error(errno.ENOENT)
        # Another index of the same manifest gets another slot: ask again each time.
        return image.attributes(image.tree().root)._replace(lasting=False)

    def entries(self, ino: int, start: int) -> Iterator[tuple[int, bytes, Attributes]]:
        """A directory from cookie ``start`` (0: all of it): next cookie, name, attributes."""
        here = self.attributes(ino)
        if not stat.S_ISDIR(here.mode):
            raise _error(errno.ENOTDIR)
        if start < 1:
            yield 1, b".", here
        if start < 2:
            yield 2, b"..", self._parent(here)
        if ino > IMAGES:
            image, nid = self._inside(ino)
            for cookie, name, child in image.tree().entries(nid, max(0, start - 2)):
                yield cookie + 2, name, image.attributes(child)
            return
        for number, (name, attributes) in enumerate(self._top(ino), 3):
            if number > start:
                yield number, name, attributes

    def _top(self, ino: int) -> list[tuple[bytes, Attributes]]:
        if ino == ROOT:
            return [(b"images", self.attributes(IMAGES)), (b"layers", self.attributes(LAYERS))]
        if ino == LAYERS:
            layers = self._layers.items()
            return [(la.name.encode(), self._layer_attributes(ino)) for ino, la in layers]
        return [(i.manifest_hex.encode(), self._image_root(i)) for i in self.images()]

    def _parent(self, here: Attributes) -> Attributes:
        if here.ino <= IMAGES:
            return self.attributes(ROOT)
        image, nid = self._inside(here.ino)
        if nid == image.tree().root:
            return self.attributes(IMAGES)
        above = image.tree().lookup(nid, b"..")
        return here if above is None else image.attributes(above)

    def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""
        image, nid = self._inside(ino)
        if not stat.S_ISLNK(image.tree().inode(nid).mode):
            raise _error(errno.EINVAL)
        return image.tree().readlink(nid)

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """Extended attributes, without those that would steer overlayfs."""
        if ino <= IMAGES or ino & _LAYER_BIT:
            return {}
        image, nid = self._inside(ino)
        found = image.tree().xattrs(nid)
        return {name: value for name, value in found.items() if not name.startswith(_HIDDEN)}

    def pieces(self, ino: int, offset: int, length: int) -> list[Piece]:
        """Where the bytes of a file are, in order, clipped to its size."""
        if ino & _LAYER_BIT:
            reader = self._layer(ino).reader
            stored = max(0, min(length, reader.size - offset))
            padding = max(0, min(length, -(-reader.size // BLOCK) * BLOCK - offset) - stored)
            found = [Piece(stored, reader, offset)] if stored else []
            return [*found, Piece(padding)] if padding else found
        image, nid = self._inside(ino)
        if not stat.S_ISREG(image.tree().inode(nid).mode):
            raise _error(errno.EINVAL)
        return image.pieces(nid, offset, length)

    def describe(self, ino: int, offset: int = 0) -> str:
        """What is read at ``offset`` in words, for a log: image, layer and chunk, or the inode."""
        if ino & _LAYER_BIT:
            layer = self._layers.get(ino)
            if layer is None:
                return f"layer {ino:#x}, which is not attached, at byte {offset}"
            users = [i.manifest_hex for i in self._images.values() if layer in i.layers]
            return f"image {' and '.join(users)}: {_place(layer, offset)}"
        image = self._slots.get(ino >> SLOT_SHIFT)
        if image is None:
            return f"inode {ino & _NID_MASK} of slot {ino >> SLOT_SHIFT} at byte {offset}"
        where = f"image {image.manifest_hex}, inode {ino & _NID_MASK} at byte {offset}"
        try:
            pieces = image.pieces(ino & _NID_MASK, offset, 1)
        except (OSError, IndexFormatError):
            return where
        for layer in image.layers:
            if pieces and pieces[0].reader is layer.reader:
                return f"{where}: {_place(layer, pieces[0].offset)}"
        return where

    def _layer(self, ino: int) -> LayerFile:
        try:
            return self._layers[ino]
        except KeyError:
            raise _error(errno.ESTALE) from None

    def _inside(self, ino: int) -> tuple[Image, int]:
        image = self._slots.get(ino >> SLOT_SHIFT)
        if image is None:
            raise _error(errno.ESTALE if ino > IMAGES else errno.EINVAL)
        return image, ino & _NID_MASK


def _place(layer: LayerFile, offset: int) -> str:
    chunk = layer.reader.chunk_at(offset)
    return f"layer {layer.diff_hex}, chunk {chunk} (byte {offset})"


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
