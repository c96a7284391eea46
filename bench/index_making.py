"""What issue 4 promises of making an index, measured in one run, each beside its goal."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path

import psutil
import zstandard
from isal import isal_zlib

from bench.torch_image import CACHE, torch_image
from clip_runc.config import Settings
from clip_runc.images.layer_pipeline import LayerRequest, index_layer
from clip_runc.images.make import index_image
from clip_runc.index.chunk_hash import BLAKE3, SHA256, hash_of, new_hash
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.erofs_write import write_erofs
from clip_runc.index.model import Entry, Extent
from clip_runc.index.tree import flatten
from clip_runc.registry.fake import FakeRegistry
from tests.integration.daemons import DockerRegistry
from tests.integration.debian_images import debian
from tests.integration.image_maker import Blob, Image
from tests.integration.pushing import push

PORT = 5148
ROUNDS = int(os.environ.get("CLIP_BENCH_ROUNDS", "1"))
WORK = CACHE / "index"
DEBIAN = CACHE / "debian"


def row(what: str, value: str, goal: str, good: bool) -> None:
    """One line of the table."""
    print(f"{what:<52} {value:>14}  {'✓' if good else '✗'} goal {goal}", flush=True)


def isolated(function: str, *arguments: object) -> dict[str, float]:
    """A function of this module in a process of its own: its result and its peak memory."""
    code = (
        "import json, sys; from bench import index_making as m; "
        "print(json.dumps(m.measured(sys.argv[1], *sys.argv[2:])))"
    )
    command = [sys.executable, "-c", code, function, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measured(function: str, *arguments: str) -> dict[str, float]:
    """Seconds of a function, CPU seconds and peak memory in MB of this process and its children."""
    begin, before = time.monotonic(), _cpu()
    value = globals()[function](*arguments)
    seconds = time.monotonic() - begin
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "seconds": value if isinstance(value, float) else seconds,
        "cpu": _cpu() - before,
        "mb": peak * 1024 / 1e6,
    }


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def plain(image: Image) -> float:
    """Seconds of ``gzip -dc | sha256sum`` over all layers, one after the other."""
    begin = time.monotonic()
    for layer in image.layers:
        _gzip_sum(layer.path)
    return time.monotonic() - begin


def _gzip_sum(path: Path) -> None:
    with subprocess.Popen(["gzip", "-dc", path], stdout=subprocess.PIPE) as gzip:
        subprocess.run(["sha256sum"], stdin=gzip.stdout, check=True, stdout=subprocess.DEVNULL)


def one_thread(path: str) -> float:
    """Seconds of ISA-L and one SHA-256 of what it gives, in one thread: what issue 4 compares."""
    begin = time.monotonic()
    decoder, digest = isal_zlib.decompressobj(31), hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 18):
            digest.update(decoder.decompress(piece))
    return time.monotonic() - begin


def parts(path: str) -> float:
    """Seconds of the work that nobody can leave out, in one thread.

    ISA-L, SHA-256 of the blob and of the stream (diff_id), BLAKE3 of its chunks.
    """
    begin = time.monotonic()
    decoder = isal_zlib.decompressobj(31)
    blob, stream, chunk = hashlib.sha256(), hashlib.sha256(), new_hash(BLAKE3)
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 18):
            blob.update(piece)
            data = decoder.decompress(piece)
            stream.update(data)
            chunk.update(data)
    return time.monotonic() - begin


def transfer(daemon: DockerRegistry, image: Image, name: str) -> float:
    """CPU seconds of the registry and of a receiver that throws away what it gets."""
    registry = psutil.Process(daemon.process.pid)
    before = sum(registry.cpu_times()[:2]), resource.getrusage(resource.RUSAGE_CHILDREN)
    for layer in image.layers:
        url = f"http://{daemon.host}/v2/{name}/blobs/{layer.digest}"
        subprocess.run(["curl", "-sfL", "-o", "/dev/null", url], check=True)
    after = sum(registry.cpu_times()[:2]), resource.getrusage(resource.RUSAGE_CHILDREN)
    curl = sum(after[1][:2]) - sum(before[1][:2])
    return after[0] - before[0] + curl


def index(reference: str, output: str) -> None:
    """Index a reference with nothing known before."""
    settings = Settings(state_dir=str(WORK / "state"), run_dir=str(WORK / "run"))
    index_image(settings, reference, output, store=False, reuse=False)


def index_cached(reference: str, output: str) -> None:
    """Index a reference and keep its layers in an empty cache, as usual."""
    shutil.rmtree(WORK / "state", ignore_errors=True)
    settings = Settings(state_dir=str(WORK / "state"), run_dir=str(WORK / "run"))
    index_image(settings, reference, output, store=False)


def whole_image(name: str, image: Image, share: float) -> None:
    """Indexing an image from a registry on loopback, against inflating and hashing it."""
    WORK.mkdir(parents=True, exist_ok=True)
    daemon = DockerRegistry(CACHE / "registry", PORT)
    try:
        reference = push(image, daemon.host, f"bench/{name}", "index")
        output = WORK / f"{name}.clip"
        for layer in image.layers:  # both start with the layers in the page cache
            with layer.path.open("rb") as file:
                while file.read(1 << 22):
                    continue
        transfer(daemon, image, f"bench/{name}")  # and the registry's copies of them
        # in turns: the machine may have other things to do
        rounds = [(isolated("index", reference, output), plain(image)) for _ in range(ROUNDS)]
        thread = sum(isolated("one_thread", layer.path)["seconds"] for layer in image.layers)
        needed = [isolated("parts", layer.path) for layer in image.layers]
        floor = sum(one["seconds"] for one in needed) / 2
        carried = transfer(daemon, image, f"bench/{name}") / 2
    finally:
        daemon.stop()
    ratio, found, beside = sorted(
        ((found["seconds"] / other, found, other) for found, other in rounds), key=lambda x: x[0]
    )[len(rounds) // 2]
    compressed = sum(layer.size for layer in image.layers)
    size = output.stat().st_size / compressed
    print(f"{name}: {len(image.layers)} layers, {compressed / 1e6:.0f} MB compressed")
    row("  gzip -dc | sha256sum", f"{beside:.1f} s", "(to compare with)", True)
    row("  indexing", f"{found['seconds']:.1f} s", "(the quotient)", True)
    row("  ISA-L and one SHA-256 in a thread / gzip…", f"{thread / beside:.2f}", "(0.29)", True)
    row("  ISA-L and all hashes on two cores / gzip…", f"{floor / beside:.2f}", "(floor)", True)
    row("  and their way from the registry / gzip…", f"{(floor + carried) / beside:.2f}", "(floor)",
        True)  # fmt: skip
    cpu = sum(one["cpu"] for one in needed)
    row("  CPU time of indexing, and of those parts", f"{found['cpu']:.1f}, {cpu:.1f} s",
        "(whatever else runs)", True)  # fmt: skip
    row("  indexing / gzip -dc | sha256sum", f"{ratio:.2f}", "0.30", ratio <= 0.3)
    row("  index / compressed layers", f"{size:.3%}", f"{share:.1%}", size <= share)
    row("  peak memory of indexing", f"{found['mb']:.0f} MB", "300 MB", found["mb"] <= 300)


def entries(count: int, first: int = 0) -> list[Entry]:
    """``count`` files in directories of a hundred, with names and sizes like real ones."""
    found = []
    for number in range(first, first + count):
        path = f"usr/lib/python3/package{number // 100}/module_{number}.py".encode()
        extents = (Extent(0, (number - first) * 4096 + 512, 3000),)
        found.append(Entry(path, stat.S_IFREG, size=3000, extents=extents))
    return found


def layer(path: str, digest: str, diff_id: str, media_type: str) -> None:
    """Index a layer that lies in a file."""
    blob = Blob(Path(path), digest, Path(path).stat().st_size, media_type, diff_id)

    def pieces() -> Iterator[bytes]:
        with blob.path.open("rb") as file:
            while piece := file.read(1 << 18):
                yield piece

    index_layer(LayerRequest(blob, diff_id, checkpoint_mib=2), pieces, print)


def one_layer() -> None:
    """CPU time, which other work disturbs little, of a layer of the torch image from a file."""
    chosen = torch_image().layers[1]
    about = (chosen.path, chosen.digest, chosen.diff_id, chosen.media_type)
    rounds = [
        (isolated("layer", *about), isolated("parts", chosen.path)) for _ in range(max(3, ROUNDS))
    ]
    found, needed = (sorted(one["cpu"] for one in each)[1] for each in zip(*rounds, strict=True))
    row(f"indexing a layer of {chosen.size / 1e6:.0f} MB, CPU", f"{found:.2f} s", "", True)
    row("  ISA-L and all hashes alone", f"{needed:.2f} s", "(floor)", True)
    row("  peak memory", f"{rounds[0][0]['mb']:.0f} MB", "300 MB", rounds[0][0]["mb"] <= 300)
    rates = ", ".join(f"{name} {hash_rate(name):.2f}" for name in (SHA256, BLAKE3))
    row("  hashing a chunk, GB/s", rates, "", True)


def hash_rate(name: str) -> float:
    """GB a second of CPU time, by the best of ten chunks."""
    data = random.Random(1).randbytes(4 << 20)
    best = float("inf")
    for _ in range(10):
        begin = time.thread_time()
        hash_of(name, data)
        best = min(best, time.thread_time() - begin)
    return len(data) / best / 1e9


def merge(layers: str, files: str) -> float:
    """Seconds to merge cached layers to an EROFS image, the cache's parsing included."""
    from clip_runc.index.layer_index import LayerIndex, pack, unpack
    from clip_runc.index.model import Layer

    each = int(files) // int(layers)
    packed = []
    for number in range(int(layers)):
        digest = f"sha256:{number:064x}"
        layer = Layer(digest, digest, "", "gzip", "gzip", 1 << 30, 1 << 40, ())
        data = pack(LayerIndex(layer, tuple(entries(each, number * each)), b""), 2)
        packed.append((digest, data))
    begin = time.monotonic()
    loaded = [unpack(data, digest, 2) for digest, data in packed]
    root = flatten([one.entries for one in loaded])
    write_erofs(
        root, [one.layer.raw_size for one in loaded], [one.layer.diff_hex for one in loaded]
    )
    return time.monotonic() - begin


def merging() -> None:
    """Ten cached layers of 30,000 files."""
    seconds = min(isolated("merge", 10, 30_000)["seconds"] for _ in range(3))
    row("merging 10 cached layers, 30,000 files", f"{seconds:.2f} s", "1 s", seconds <= 1)


def many_files(count: int) -> Iterator[bytes]:
    """A ustar stream of ``count`` files of 100 bytes, in directories of a hundred."""
    info = tarfile.TarInfo("x" * 60)
    info.size, info.mtime = 100, 1_700_000_000
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[148:156] = b" " * 8
    rest = sum(header[100:])
    data = (b"a line of text\n" * 7)[:100] + bytes(412)
    for number in range(count):
        name = b"usr/lib/package%d/module_%d.py" % (number // 100, number)
        header[:100] = name.ljust(100, b"\0")
        header[148:156] = b"%06o\0 " % (rest + sum(name))
        yield bytes(header) + data
    yield bytes(1024)


def scaling() -> None:
    """Time and memory of indexing against the number of files, from a registry."""
    each: list[float] = []
    for count in (10_000, 100_000, 1_000_000):
        raw, packer, blob = hashlib.sha256(), zlib.compressobj(1, zlib.DEFLATED, 31), bytearray()
        for piece in many_files(count):
            raw.update(piece)
            blob += packer.compress(piece)
        blob += packer.flush()
        with FakeRegistry() as fake:
            diff_id = f"sha256:{raw.hexdigest()}"
            fake.add_image("bench/files", "1", [bytes(blob)], diff_ids=[diff_id])
            reference = str(fake.reference("bench/files", "1"))
            found = isolated("index_cached", reference, WORK / "files.clip")
        each.append(found["seconds"] / count)
        shown = f"{found['seconds']:.1f} s, {found['mb']:.0f} MB"
        row(f"indexing a layer of {count:,} files", shown, "1.5 GB", found["mb"] <= 1500)
    ratio = each[-1] / each[1]
    row("  time a file, 1,000,000 against 100,000 files", f"{ratio:.2f}", "linear", ratio <= 1.25)


def zeros() -> None:
    """Memory of indexing 4 GiB of zeros, which gzip makes a thousandth of."""
    info = tarfile.TarInfo("zeros")
    info.size = 4 << 30
    pieces = chain([info.tobuf(tarfile.GNU_FORMAT)], repeat(bytes(1 << 20), 4096), [bytes(1024)])
    raw, packer, blob = hashlib.sha256(), zlib.compressobj(1, zlib.DEFLATED, 31), bytearray()
    for piece in pieces:
        raw.update(piece)
        blob += packer.compress(piece)
    blob += packer.flush()
    with FakeRegistry() as fake:
        diff_id = f"sha256:{raw.hexdigest()}"
        fake.add_image("bench/zeros", "1", [bytes(blob)], diff_ids=[diff_id])
        reference = str(fake.reference("bench/zeros", "1"))
        found = isolated("index", reference, WORK / "zeros.clip")
    row("peak memory of indexing 4 GiB of zeros", f"{found['mb']:.0f} MB", "300 MB",
        found["mb"] <= 300)  # fmt: skip


def long_windows() -> None:
    """Memory of indexing two layers that zstd --long=27 made, of one frame each."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    packed, diff_ids = [], []
    for seed in range(2):
        info = tarfile.TarInfo("noise")
        info.size = 192 << 20
        noise = repeat(random.Random(seed).randbytes(1 << 20), 192)
        raw, blob = hashlib.sha256(), bytearray()
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        for piece in chain([info.tobuf(tarfile.GNU_FORMAT)], noise, [bytes(1024)]):
            raw.update(piece)
            blob += packer.compress(piece)
        packed.append(bytes(blob + packer.flush()))
        diff_ids.append(f"sha256:{raw.hexdigest()}")
    with FakeRegistry() as fake:
        fake.add_image("bench/long", "1", packed, diff_ids=diff_ids)
        reference = str(fake.reference("bench/long", "1"))
        found = isolated("index", reference, WORK / "long.clip")
    row("peak memory of two layers of zstd --long=27", f"{found['mb']:.0f} MB", "300 MB",
        found["mb"] <= 300)  # fmt: skip


def loading() -> None:
    """Opening an index of 30,000 files, and its EROFS image with checksum."""
    found = next((p for p in (WORK / "torch.clip",) if p.exists()), None)
    if found is None:
        print("load: run bench/index torch first")
        return
    actions: list[tuple[str, Callable[[ClipFile], object]]] = [
        ("open, all chunks of all layers", lambda clip: clip.layers),
        ("  and its EROFS image, decompressed and checked", lambda clip: clip.erofs()),
    ]
    for what, action in actions:
        times: list[float] = []
        for _ in range(15):
            begin = time.monotonic()
            with ClipFile.open(str(found)) as clip:
                action(clip)
            times.append((time.monotonic() - begin) * 1000)
        middle = sorted(times)[len(times) // 2]
        row(f"loading an index: {what}" if what[0] != " " else what, f"{middle:.1f} ms", "30 ms",
            middle <= 30)  # fmt: skip


def main() -> None:
    chosen = sys.argv[1:] or ["torch", "debian", "layer", "merge", "scale", "zeros", "long", "load"]
    WORK.mkdir(parents=True, exist_ok=True)
    if "torch" in chosen:
        whole_image("torch", torch_image(), 0.002)
    if "debian" in chosen:
        whole_image("debian", debian(DEBIAN), 0.01)
    parts = {
        "layer": one_layer,
        "merge": merging,
        "scale": scaling,
        "zeros": zeros,
        "long": long_windows,
        "load": loading,
    }
    for name, function in parts.items():
        if name in chosen:
            function()
    shutil.rmtree(WORK / "state", ignore_errors=True)


if __name__ == "__main__":
    main()
