from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.images import lean

REPOSITORY = Path(lean.__file__).parents[2]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(values, st.sampled_from(["", "\t", "  "]))
def test_what_is_written_is_read_by_json_and_by_us(value: object, indent: str) -> None:
    data = lean.dumps(value, indent)
    assert json.loads(data) == value
    assert lean.loads(data) == value


@given(st.binary(max_size=60))
def test_rubbish_is_a_value_error_or_what_json_says(data: bytes) -> None:
    try:
        expected = json.loads(data.decode())
    except (ValueError, RecursionError):
        with pytest.raises(ValueError):
            lean.loads(data)
    else:
        found = lean.loads(data)
        assert found == expected or str(expected) in (str(float(str(found))), "nan")


@pytest.mark.parametrize("text", ["1e3", "1.0", "-0.10", "1E400", "0.1000000000000000055511151231"])
def test_numbers_that_are_no_integers_stay_as_they_are(text: str) -> None:
    assert lean.dumps(lean.loads(f'{{"a": {text}}}'.encode())) == f'{{"a": {text}}}'.encode()


def test_large_integers_and_the_order_of_keys_stay() -> None:
    data = b'{"z": 18446744073709551615, "a": [], "m": {}}'
    assert lean.dumps(lean.loads(data)) == data


@pytest.mark.parametrize("data", [b"", b" ", b"{} {}", b"NaN", b"[" * 100000, b"\xff", b'{"a":}'])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        lean.loads(data)


def test_only_an_object_will_do() -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        lean.loads_object(b"[]")


def test_what_is_nested_too_deep_is_not_written() -> None:
    value: object = 0
    for _ in range(300):
        value = [value]
    with pytest.raises(ValueError, match="deep"):
        lean.dumps(value)


def test_a_value_without_a_form_in_json_is_an_error() -> None:
    with pytest.raises(TypeError, match="set"):
        lean.dumps({"a": {1}})


def test_sha256() -> None:
    assert lean.sha256_hex(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_the_public_parts_of_json_do_where_the_private_ones_are_missing() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r});"
        "sys.modules.update(dict.fromkeys(('_json', '_sha256', '_sha2')));"
        "from clip_runc.images import lean;"
        "assert lean.loads(b' {\"a\": [1, 2.50, \"\\\\u00e9\"]} ') == {'a': [1, '2.50', '\\xe9']};"
        "print(lean.dumps({'a': 'é'}).decode(), lean.sha256_hex(b'abc')[:8])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == '{"a": "\\u00e9"} ba7816bf\n'
