"""JSON and SHA-256 at the price that the hot path of the shim can pay.

``import json`` costs 6 ms, because it compiles regular expressions; the scanner written in C
that does its work costs nothing (``python3 -I -S -c "import json"`` 14.5 ms, ``import _json``
7.2, a bare interpreter 7.1).  The C parts are private names of CPython, so each has a public
fallback.

Numbers with a fraction or an exponent are kept as they were written (``Number``): a
config.json that we rewrite must not turn ``1e3`` into ``1000.0``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_SPACE = " \t\n\r"
_DEPTH = 200


class Number(str):
    """The text of a JSON number that is no integer."""

    __slots__ = ()


class _Context:
    """What ``_json.make_scanner`` wants to know; the attributes of ``json.JSONDecoder``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = Number
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> object:
        raise ValueError(f"{name} is not JSON")


def _make_scanner() -> Callable[[str, int], tuple[Any, int]]:
    module: Any
    try:
        import _json as module
    except ImportError:
        from json import JSONDecoder

        decoder = JSONDecoder(parse_float=Number, parse_constant=_Context.parse_constant)
        return decoder.scan_once  # type: ignore[attr-defined, no-any-return]  # not in typeshed
    return module.make_scanner(_Context())  # type: ignore[no-any-return]


def _make_quote() -> Callable[[str], str]:
    try:
        from _json import encode_basestring_ascii
    except ImportError:
        from json.encoder import py_encode_basestring_ascii

        return py_encode_basestring_ascii
    return encode_basestring_ascii


_scan = _make_scanner()
_quote = _make_quote()


def loads(data: bytes) -> object:
    """The value of a JSON document in UTF-8.  Raises ``ValueError`` for anything else."""
    text = data.decode()
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except StopIteration:
        raise ValueError("not JSON: a value is missing") from None
    except RecursionError:
        raise ValueError("not JSON that we read: nested too deep") from None
    if text[end:].strip(_SPACE):
        raise ValueError(f"not JSON: more after its end, at character {end}")
    return value


def loads_object(data: bytes) -> dict[str, object]:
    """As ``loads``, for a document that has to be an object."""
    value = loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def dumps(value: object, indent: str = "") -> bytes:
    """``value`` as JSON; keys keep their order.  ``indent`` ("\\t", say) spreads it over lines."""
    pieces: list[str] = []
    _write(value, pieces.append, indent, 0)
    if indent:
        pieces.append("\n")
    return "".join(pieces).encode()


def _write(value: object, put: Callable[[str], None], indent: str, depth: int) -> None:
    if depth > _DEPTH:
        raise ValueError("nested too deep")
    if isinstance(value, Number):
        put(str(value))
    elif isinstance(value, str):
        put(_quote(value))
    elif value is None or value is True or value is False:
        put({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, int):
        put(str(value))
    elif isinstance(value, dict):
        _write_all("{}", ((f"{_quote(k)}: ", v) for k, v in value.items()), put, indent, depth)
    elif isinstance(value, (list, tuple)):
        _write_all("[]", (("", v) for v in value), put, indent, depth)
    else:
        raise TypeError(f"{type(value).__name__} has no form in JSON")


def _write_all(
    brackets: str,
    items: Iterable[tuple[str, object]],
    put: Callable[[str], None],
    indent: str,
    depth: int,
) -> None:
    put(brackets[0])
    separator = f"\n{indent * (depth + 1)}" if indent else ""
    empty = True
    for key, value in items:
        put(separator if empty else f",{separator or ' '}")
        put(key)
        _write(value, put, indent, depth + 1)
        empty = False
    if indent and not empty:
        put(f"\n{indent * depth}")
    put(brackets[1])


def sha256_hex(data: bytes) -> str:
    """The 64 hexadecimal digits of SHA-256, for short data (hashlib costs 2.6 ms to import)."""
    return str(_find_sha256()(data).hexdigest())


def _find_sha256() -> Any:
    module: Any
    try:
        module = __import__("_sha256")  # CPython 3.11
    except ImportError:
        try:
            module = __import__("_sha2")  # since 3.12
        except ImportError:
            import hashlib as module
    return module.sha256
