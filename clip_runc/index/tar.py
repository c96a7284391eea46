"""The uncompressed stream of a layer, pushed in pieces of any size, becomes a list of entries.

File data are not looked at: a member's body is skipped by arithmetic, so that the cost
is that of the headers.  Every limit that a hostile archive could strain is in ``Limits``.

Global PAX headers are checked and then ignored, as Go's ``archive/tar`` does: applying
them, as GNU tar does, would show other files here than under containerd, Docker and
every scanner of images.
"""

from __future__ import annotations

import stat
from collections.abc import Generator

from clip_runc.errors import LayerFormatError
from clip_runc.index import pax, sparse, tar_header
from clip_runc.index.members import DEFAULT_LIMITS, Limits, Members
from clip_runc.index.model import Entry, Extent
from clip_runc.index.tar_header import RECORD, Header

Steps = Generator[int, bytes, None]
"""A parser: yields ``n`` for the next ``n`` bytes, which it is sent, and ``-n`` to skip ``n``."""

_EXTENSIONS = frozenset(
    (
        tar_header.PAX,
        tar_header.PAX_SOLARIS,
        tar_header.PAX_GLOBAL,
        tar_header.GNU_NAME,
        tar_header.GNU_LINK,
    )
)
KINDS = {
    tar_header.REGULAR: stat.S_IFREG,
    tar_header.LEGACY: stat.S_IFREG,
    tar_header.CONTIGUOUS: stat.S_IFREG,
    tar_header.GNU_SPARSE: stat.S_IFREG,
    tar_header.HARD_LINK: 0,
    tar_header.SYMLINK: stat.S_IFLNK,
    tar_header.CHARACTER: stat.S_IFCHR,
    tar_header.BLOCK_DEVICE: stat.S_IFBLK,
    tar_header.DIRECTORY: stat.S_IFDIR,
    tar_header.FIFO: stat.S_IFIFO,
}


class TarScanner:
    """Push parser of a tar stream: ``feed`` pieces, then ``close`` for the entries.

    Both raise ``LayerFormatError``; after that the scanner refuses everything.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._found = Members(limits)
        self._offset = 0  # of the next byte the parser has not been given
        self._due = 0  # where the data of the last member end
        self._ended = False
        self._between = True  # waiting for the header of a new member
        self._literal = 0
        self._failed: LayerFormatError | None = None
        self._held = bytearray()
        self._skip = 0
        self._parser = self._members()
        self._want = next(self._parser)

    @property
    def entries(self) -> list[Entry]:
        """The members that are known so far, in the order of the archive."""
        return self._found.entries

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the stream.  Raises ``LayerFormatError``."""
        if self._failed:
            raise self._failed
        try:
            self._feed(memoryview(data))
        except LayerFormatError as error:
            self._failed = error
            raise

    def _feed(self, view: memoryview) -> None:
        at, end = 0, len(view)
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                self._offset += step
                at += step
                continue
            step = min(self._want - len(self._held), end - at)
            piece = bytes(view[at : at + step])
            at += step
            self._offset += step
            if step < self._want:
                self._held += piece
                if len(self._held) < self._want:
                    return
                piece = bytes(self._held)
                self._held.clear()
            self._advance(piece)
        if self._offset > self._limits.stream:
            raise LayerFormatError(f"the layer is over {self._limits.stream} bytes")

    def _advance(self, piece: bytes) -> None:
        request = self._parser.send(piece)
        while request < 0:
            # the bytes are skipped before the parser gets its next piece, so it may run ahead
            self._skip -= request
            request = self._parser.send(b"")
        self._want = request

    def close(self) -> list[Entry]:
        """End the stream; gives its entries.  Raises ``LayerFormatError`` where it was cut off."""
        if self._failed:
            raise self._failed
        cut = self._held or not self._between or self._offset < self._due
        if cut and not self._ended:
            raise LayerFormatError(
                f"the layer ends at {self._offset} in the middle of a member",
                "the stream was cut off; fetch it again",
            )
        return self._found.entries

    # The parser.  ``_here`` is where the bytes it asks for next will lie.

    @property
    def _here(self) -> int:
        return self._offset + self._skip

    def _members(self) -> Steps:
        while True:
            self._between = True
            block = yield RECORD
            if block == tar_header.ZERO_RECORD:
                block = yield RECORD
                if block != tar_header.ZERO_RECORD:
                    raise LayerFormatError(f"a lone zero record before offset {self._offset}")
                self._ended = True
                while True:
                    yield -(1 << 62)
                    yield RECORD
            header = tar_header.decode(block, self._offset - RECORD)
            if header.type == tar_header.PAX_GLOBAL:
                pax.parse((yield from self._payload(header)), self._offset)
                continue
            self._between = False
            records = pax.Records({})
            names: dict[bytes, bytes] = {}
            while header.type in _EXTENSIONS:
                data = yield from self._payload(header)
                if header.type in (tar_header.GNU_NAME, tar_header.GNU_LINK):
                    names[header.type] = data.partition(b"\0")[0]
                else:
                    found = pax.parse(data, self._offset)
                    if header.type != tar_header.PAX_GLOBAL:
                        records = found
                block = yield RECORD
                header = tar_header.decode(block, self._offset - RECORD)
            if records.values:
                header = _merge(header, records, self._offset)
            if names:
                header = header._replace(
                    name=names.get(tar_header.GNU_NAME) or header.name,
                    link=names.get(tar_header.GNU_LINK) or header.link,
                )
            yield from self._member(block, header, records)

    def _payload(self, header: Header) -> Generator[int, bytes, bytes]:
        if header.size > self._limits.header:
            raise LayerFormatError(
                f"extended header at {self._offset}: {header.size} bytes",
                f"the limit is {self._limits.header}",
            )
        if not header.size:
            return b""
        data = yield header.size
        if header.size % RECORD:
            yield -(-header.size % RECORD)
        return data

    def _member(self, block: bytes, header: Header, records: pax.Records) -> Steps:
        place = self._here
        if header.type == tar_header.LEGACY and header.name.endswith(b"/"):
            header = header._replace(type=tar_header.DIRECTORY)
        kind = KINDS.get(header.type)
        if kind is None:
            raise LayerFormatError(
                f"member {header.name[:200]!r} at {place - RECORD} is of the unknown type "
                f"{header.type!r}"
            )
        size, stored = header.size, header.size
        extents: tuple[Extent, ...] = ()
        literal = b""
        if header.type in tar_header.HEADER_ONLY:
            size = stored = 0
        elif header.type == tar_header.GNU_SPARSE or _has_map(records):
            size, extents, literal = yield from self._sparse(block, header, records)
            stored = 0
        elif size:
            extents = (Extent(0, place, size),)
        self._found.add(header, kind, records.values, size, extents, literal, self._offset)
        if stored:
            yield -stored
        self._due = self._here
        if padding := -self._here % RECORD:
            yield -padding

    def _sparse(
        self, block: bytes, header: Header, records: pax.Records
    ) -> Generator[int, bytes, tuple[int, tuple[Extent, ...], bytes]]:
        """Read maps wherever they stand; gives the real size, extents and literal bytes."""
        values, stored, offset = records.values, header.size, self._offset
        segments: list[sparse.Segment] | None
        size = _real_size(values, header.size, offset)
        if header.type == tar_header.GNU_SPARSE:
            size = tar_header.number(block[483:495], "real size", offset)
            segments = sparse.gnu_segments(block[386:482], offset)
            more, read = block[482], 0
            while more:
                read += RECORD
                if read > self._limits.header:
                    raise LayerFormatError(f"member at {offset}: sparse map is too long")
                extension = yield RECORD
                segments += sparse.gnu_segments(extension[:504], offset)
                more = extension[504]
        elif values.get(b"GNU.sparse.major") == b"1":
            segments, taken = yield from sparse.read_map(self._limits.header, offset)
            stored -= taken
        else:
            segments = sparse.pax_segments(records, offset)
            if segments is None:
                segments = [(0, stored)]
        segments = sparse.checked(segments, size, stored, offset)
        self._due = self._here + stored
        placer = sparse.Placer(size, self._limits.literal - self._literal)
        extents, literal = yield from placer.place(segments, self._here)
        self._literal += len(literal)
        return size, extents, literal


def _merge(header: Header, records: pax.Records, offset: int) -> Header:
    """Let an extended header override; an empty value means the header's own."""
    values = records.values
    name = values.get(b"GNU.sparse.name") or values.get(b"path")
    link = values.get(b"linkpath")
    numbers = {
        key: pax.integer(values[key.encode()], key, offset)
        for key in ("uid", "gid", "size")
        if values.get(key.encode())
    }
    if not (name or link or numbers):
        return header  # most often only a time
    if not 0 <= numbers.get("size", 0) < 1 << 63:
        raise LayerFormatError(f"PAX header at {offset}: size {numbers['size']} is out of range")
    return header._replace(
        name=name or header.name,
        link=link or header.link,
        uid=numbers.get("uid", header.uid),
        gid=numbers.get("gid", header.gid),
        size=numbers.get("size", header.size),
    )


def _has_map(records: pax.Records) -> bool:
    return any(key.startswith(b"GNU.sparse.") for key in records.values)


def _real_size(values: dict[bytes, bytes], default: int, offset: int) -> int:
    for key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
        if text := values.get(key):
            return pax.integer(text, key.decode(), offset)
    return default
