"""Time and memory that a hostile .clip file can take: fault 24."""

import hashlib
import os
import subprocess
import sys

import pytest

from clip_runc.index import clip_format as fmt
from clip_runc.index.chunk_table import MAX_CHUNKS, pack_chunks
from clip_runc.index.clipfile import write_clip
from clip_runc.index.model import Chunk, Layer
from tests.integration.prerequisites import paced

PROGRAM = """
import sys, time
from clip_runc.errors import IndexFormatError
from clip_runc.index.clipfile import ClipFile
started = time.process_time()
try:
    with ClipFile.open(sys.argv[1]) as clip:
        clip.config, clip.erofs(), clip.prefetch(), clip.content_digest
        clip.check_windows_section()
    print("sound", end=" ")
except IndexFormatError:
    print("refused", end=" ")
# not ru_maxrss: a child that was made by vfork starts with the maximum of its parent
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line[:6] == "VmHWM:")
print(time.process_time() - started, peak // 1024)
"""


def cost(path) -> tuple[str, float, int]:
    """Verdict, CPU seconds and MiB at the peak of an own process."""
    command = [sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    verdict, seconds, peak = done.stdout.split()
    return verdict, float(seconds), int(peak)


def layer_of(count: int) -> Layer:
    chunks = tuple(Chunk(i, i + 1, 0, 1, os.urandom(32)) for i in range(count))
    return Layer(*["sha256:" + "0" * 64] * 2, "x", "zstd", "zstd", 1, count, chunks)


def write(path, **changes) -> None:
    values = {"manifest": b"{}", "config": b"{}", "platform": "p", "source": "s", "layers": []}
    with open(path, "wb") as out:
        write_clip(out, **{"erofs": b"", **values, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        lambda: {"layers": [(layer_of(MAX_CHUNKS), b"")]},
        lambda: {"erofs": bytes(fmt.LIMITS[b"EROF"][1])},
        lambda: {"config": bytes(fmt.LIMITS[b"CONF"][1])},
    ],
)
def test_the_largest_that_is_accepted(changes, tmp_path):
    write(tmp_path / "x.clip", **changes())
    verdict, seconds, peak = cost(tmp_path / "x.clip")
    assert verdict == "sound"
    assert seconds < paced(30)
    assert peak < 256


@pytest.mark.parametrize("section", [b"LAYR", b"PREF"])
@pytest.mark.parametrize("unit", [b"[],", b'"",', b"[[[[[[[[", b"{},", b"1,"])
def test_json_that_grows_when_it_is_parsed(section, unit, tmp_path):
    body = b"[" + unit * ((fmt.LIMITS[section][0] - 4) // len(unit)) + b"0]"
    bodies = dict.fromkeys(fmt.LIMITS, b"")
    bodies |= {b"LAYR": b"[]", b"PREF": b"[]", section: body}

    position, table = fmt.TABLE_SIZE, []
    for name, text in bodies.items():
        digest = hashlib.sha256(text).digest()
        table.append(fmt.Section(name, fmt.RAW, position, len(text), len(text), digest))
        position += len(text)
    (tmp_path / "x.clip").write_bytes(fmt.pack_table(table) + b"".join(bodies.values()))
    verdict, seconds, peak = cost(tmp_path / "x.clip")
    assert verdict == "refused"
    assert seconds < paced(30)
    assert peak < 256


def test_the_table_of_the_largest_index_fits_its_section():
    size = len(pack_chunks(layer_of(1).chunks)) * MAX_CHUNKS
    assert size <= fmt.LIMITS[b"CHNK"][0]
