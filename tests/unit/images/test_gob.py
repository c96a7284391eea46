"""Go's gob, read: what Go's own encoder made, and bytes that nobody made on purpose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import IndexFormatError
from clip_runc.images.gob import decode

# encoding/gob of go1.26 for a struct of each kind of field that is read
ALL = bytes.fromhex(
    "7b7f03010103416c6c01ff8000010b010454657874010c000103526177010a0001054d696e757301040001054c6172"
    "67650106000105547275746801020001045a65726f01040001044c69737401ff840001034d617001ff860001045061"
    "697201ff880001045768656e01ff8a0001064e657374656401ff8e0000001bff830201010c5b5d6d61696e2e496e6e"
    "657201ff840001ff82000023ff8103010105496e6e657201ff8200010201044e616d65010c00010249640104000000"
    "27ff85040101166d61705b737472696e675d2a6d61696e2e496e6e657201ff8600010c01ff82000019ff8701010109"
    "5b325d75696e74313601ff880001060104000010ff890501010454696d6501ff8a00000021ff8d040101106d61705b"
    "737472696e675d5b5d696e7401ff8e00010c01ff8c00000cff8b020102ff8c00010400005eff80010668c3a96c6c6f"
    "010200ff01f8ffffffffffffffff01f8ffffffffffffffff010102030101610102000002fe0101000101016b010176"
    "01fe025800010207feffff010f010000000ee296ca8000000000ffff010101780302030600"
)


def test_every_kind_of_field() -> None:
    assert decode(ALL) == {
        "Text": "héllo",
        "Raw": b"\0\xff",
        "Minus": -(1 << 63),
        "Large": (1 << 64) - 1,
        "Truth": True,
        "List": [{"Name": "a", "Id": 1}, {}, {"Id": -129}],
        "Map": {"k": {"Name": "v", "Id": 300}},
        "Pair": [7, 65535],
        "When": bytes.fromhex("010000000ee296ca8000000000ffff"),
        "Nested": {"x": [1, -2, 3]},
    }


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("0cff8f020102ff9000010c00000cff900002036f6e650374776f", ["one", "two"]),
        ("03040009", -5),
        ("080c0005616c6f6e65", "alone"),
    ],
)
def test_values_that_are_no_struct(data: str, value: object) -> None:
    assert decode(bytes.fromhex(data)) == value


def test_a_value_is_as_deep_as_its_types_allow_and_no_deeper() -> None:
    """type T []T, and a value of it that goes down for ever."""
    kind = bytes.fromhex("0cff8f020102ff900001ff900000")
    assert len(kind) == 0x0C + 2
    deep = b"\xff\x90\x00" + b"\x01" * 100
    with pytest.raises(IndexFormatError):
        decode(bytes([len(kind) - 1]) + kind[1:] + bytes([len(deep)]) + deep)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    try:
        decode(data)
    except IndexFormatError:
        return


@given(st.integers(0, len(ALL) - 1), st.integers(1, 255), st.booleans())
def test_damaged_bytes(place: int, flip: int, cut: bool) -> None:
    data = ALL[:place] if cut else ALL[:place] + bytes([ALL[place] ^ flip]) + ALL[place + 1 :]
    try:
        decode(data)
    except IndexFormatError:
        return
    assert not cut or place > len(ALL) - 2
