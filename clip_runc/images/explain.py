"""A program without libraries that says one thing on stderr and ends with status 126.

What a stub image starts where the runtime is not clip-runc.  Written byte by byte, because the
machine that publishes need not have an assembler, let alone one for each architecture.
Sources: ELF-64 (System V ABI); Linux' system call tables of x86-64 and arm64.
"""

from __future__ import annotations

import struct

STATUS = 126
"""What shells answer for "found, but cannot be executed"."""
_BASE = 0x400000
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_START = _HEADER.size + _SEGMENT.size
_MACHINES = {"amd64": 62, "arm64": 183}
_TEXT_LIMIT = 0xFFFF


def program(architecture: str, text: str) -> bytes | None:
    """A static ELF executable for ``amd64`` or ``arm64``; None for other architectures."""
    if architecture not in _MACHINES:
        return None
    message = text.encode()[:_TEXT_LIMIT]
    code = {"amd64": _amd64, "arm64": _arm64}[architecture](len(message))
    size = _START + len(code) + len(message)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little endian, version 1
    header = _HEADER.pack(
        identity, 2, _MACHINES[architecture], 1, _BASE + _START, _HEADER.size, 0, 0,
        _HEADER.size, _SEGMENT.size, 1, 0, 0, 0,
    )  # fmt: skip
    load_read_execute = _SEGMENT.pack(1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return header + load_read_execute + code + message


def _amd64(length: int) -> bytes:
    after = struct.pack(
        "<BIHBIBIH",
        0xBA, length,  # mov edx, length
        0x050F,  # syscall
        0xB8, 231,  # mov eax, exit_group
        0xBF, STATUS,  # mov edi, STATUS
        0x050F,
    )  # fmt: skip
    return (
        struct.pack("<BIBI", 0xB8, 1, 0xBF, 2)  # mov eax, write; mov edi, stderr
        + b"\x48\x8d\x35" + struct.pack("<i", len(after))  # lea rsi, [rip + after]
        + after
    )  # fmt: skip


def _arm64(length: int) -> bytes:
    def move(register: int, value: int) -> int:
        return 0xD2800000 | value << 5 | register

    call = 0xD4000001
    distance = 6 * 4  # from the adr to the text behind the code
    address = 0x10000000 | (distance & 3) << 29 | (distance >> 2) << 5 | 1
    return struct.pack(
        "<8I",
        move(8, 64), move(0, 2), address, move(2, length), call,  # write(stderr, text, length)
        move(8, 94), move(0, STATUS), call,  # exit_group(STATUS)
    )  # fmt: skip
