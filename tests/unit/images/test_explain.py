from __future__ import annotations

import platform
import struct
import subprocess
from pathlib import Path

import pytest

from clip_runc.images.explain import STATUS, program

HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())


def test_it_says_so_and_ends(tmp_path: Path) -> None:
    made = program(str(HERE), "runs only with clip-runc ✓\n")
    if made is None:
        pytest.skip("neither x86-64 nor arm64")
    path = tmp_path / "explain"
    path.write_bytes(made)
    path.chmod(0o755)
    done = subprocess.run([path], capture_output=True, check=False, timeout=10)
    assert (done.returncode, done.stdout) == (STATUS, b"")
    assert done.stderr.decode() == "runs only with clip-runc ✓\n"


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_the_text_is_where_the_code_looks(architecture: str, machine: int) -> None:
    text = "x" * 300
    made = program(architecture, text)
    assert made is not None
    assert made[:4] == b"\x7fELF" and struct.unpack_from("<H", made, 18) == (machine,)
    assert struct.unpack_from("<2Q", made, 64 + 32) == (len(made), len(made))
    start = made.index(b"xxx")
    code = made[120:start]
    if architecture == "amd64":
        at = code.index(b"\x48\x8d\x35") + 7
        assert at + struct.unpack_from("<i", code, at - 4)[0] == len(code)
        return
    words = struct.unpack(f"<{len(code) // 4}I", code)
    adr = next(i for i, word in enumerate(words) if word & 0x9F00001F == 0x10000001)
    assert adr * 4 + (words[adr] >> 5 & 0x7FFFF) * 4 + (words[adr] >> 29 & 3) == len(code)
    assert words.count(0xD4000001) == 2
    assert words[3] == 0xD2800000 | 300 << 5 | 2  # movz x2, #300


@pytest.mark.parametrize("architecture", ["s390x", "arm", "", "386"])
def test_other_architectures_have_none(architecture: str) -> None:
    assert program(architecture, "text") is None


def test_a_text_without_end_is_cut() -> None:
    assert len(program("arm64", "x" * (1 << 20)) or b"") < 1 << 17
