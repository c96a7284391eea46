"""Tar streams and blobs for the tests of this directory; no pytest in here."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import subprocess
import tarfile
import zlib
from dataclasses import dataclass, field
from types import SimpleNamespace

import zstandard

OCI = "application/vnd.oci.image.layer.v1.tar"


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def mixed_tar(size: int, seed: int = 1) -> bytes:
    """A tar of about ``size`` bytes: text-like, noise and zeros, as layers have them."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randrange(2, 12)) for _ in range(2000)]
    files: dict[str, bytes] = {}
    total = 0
    while total < size:
        kind = len(files) % 4
        if kind < 2:
            data = b" ".join(rng.choices(words, k=60_000))
        elif kind == 2:
            data = rng.randbytes(300_000)
        else:
            data = bytes(700_000)
        files[f"dir/file{len(files)}"] = data
        total += len(data)
    return tar_of(files)


def gzip_members(data: bytes, step: int, level: int = 6) -> bytes:
    parts = (data[i : i + step] for i in range(0, len(data), step))
    return b"".join(gzip.compress(part, level, mtime=0) for part in parts)


def bgzip(data: bytes) -> bytes:
    """As bgzip writes it: members that say how long they are, and an empty one at the end."""
    head = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff\x06\x00BC\x02\x00"
    members = []
    for part in [data[i : i + 65280] for i in range(0, len(data), 65280)] + [b""]:
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = deflate.compress(part) + deflate.flush()
        sizes = (len(body) + 25).to_bytes(2, "little"), zlib.crc32(part).to_bytes(4, "little")
        members += [head, sizes[0], body, sizes[1], len(part).to_bytes(4, "little")]
    return b"".join(members)


def gzip_flushed(data: bytes, step: int) -> bytes:
    """One member with full flushes, as pgzip and pigz -i write."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    out = []
    for i in range(0, len(data), step):
        out += [packer.compress(data[i : i + step]), packer.flush(zlib.Z_FULL_FLUSH)]
    return b"".join([*out, packer.flush()])


def gzip_strategy(data: bytes, strategy: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31, 8, strategy)
    return packer.compress(data) + packer.flush()


def one_block(data: bytes) -> bytes:
    """A member whose one block has the fixed code (RFC 1951, 3.2.6) and no references."""
    codes = [f"{byte + 48:08b}" if byte < 144 else f"{byte + 256:09b}" for byte in range(256)]
    bits = "110" + "".join(map(codes.__getitem__, data)) + "0000000"
    body = int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")
    trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return b"\x1f\x8b\x08" + bytes(7) + body + trailer


def pigz(data: bytes, *options: str) -> bytes | None:
    """None where there is no pigz."""
    program = shutil.which("pigz")
    if program is None:
        return None
    return subprocess.run([program, *options], input=data, capture_output=True, check=True).stdout


def zstd_frames(data: bytes, step: int) -> bytes:
    packer = zstandard.ZstdCompressor(level=1)
    return b"".join(packer.compress(data[i : i + step]) for i in range(0, len(data), step))


@dataclass
class Source:
    """What ``build_index`` needs of an image, with the registry counted."""

    layers: list[SimpleNamespace]
    diff_ids: list[str]
    blobs: dict[str, bytes]
    reference: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(name="h/app"))
    platform: str = "linux/amd64"
    streamed: list[str] = field(default_factory=list)

    @property
    def registry(self) -> Source:
        return self

    def stream(self, digest: str, size: int, start: int = 0):
        self.streamed.append(digest)
        blob = self.blobs[digest]
        for place in range(start, len(blob), 65536):
            yield blob[place : place + 65536]

    @property
    def config(self) -> bytes:
        return json.dumps({"rootfs": {"diff_ids": self.diff_ids}}).encode()

    @property
    def manifest(self) -> bytes:
        rows = [{"digest": x.digest, "size": x.size} for x in self.layers]
        return json.dumps({"config": {"digest": sha(self.config)}, "layers": rows}).encode()

    @property
    def manifest_digest(self) -> str:
        return sha(self.manifest)


def source_of(*layers: tuple[bytes, bytes, str]) -> Source:
    """An image of layers, each (tar, blob, what the media type ends in)."""
    descriptors = [
        SimpleNamespace(digest=sha(blob), size=len(blob), media_type=OCI + suffix)
        for _, blob, suffix in layers
    ]
    blobs = {sha(blob): blob for _, blob, _ in layers}
    return Source(descriptors, [sha(tar) for tar, _, _ in layers], blobs)
