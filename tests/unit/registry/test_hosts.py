from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import ConfigError
from clip_runc.registry import hosts
from clip_runc.registry.hosts import Hosts, Place

EXAMPLE = b"""
server = "https://registry-1.docker.io"

[host."https://mirror.example:5000"]
  capabilities = ["pull"]
  ca = "mirror.crt"
  client = [["client.crt", "/keys/client.key"]]
  [host."https://mirror.example:5000".header]
    x-team = ["a", "b"]
    authorization = "Basic x"

[host."http://10.0.0.7/v2/proxy"]
  override_path = true
  skip_verify = true

[host."cache.example/hub"]
"""


def test_containerds_example() -> None:
    found = hosts.parse(EXAMPLE, "/etc/certs.d/docker.io/hosts.toml")
    first, second, third = found.mirrors
    everything = frozenset({"pull", "resolve", "push"})
    assert first == Place(
        "https",
        "mirror.example:5000",
        "/v2",
        frozenset({"pull"}),
        "/etc/certs.d/docker.io/mirror.crt",
        "/etc/certs.d/docker.io/client.crt",
        "/keys/client.key",
        headers={"x-team": "a, b", "authorization": "Basic x"},
    )
    assert second == Place("http", "10.0.0.7", "/v2/proxy", everything, skip_verify=True)
    assert third == Place("https", "cache.example", "/hub/v2", everything)
    assert found.server == Place("https", "registry-1.docker.io", "/v2", everything)


def test_where_it_lies(tmp_path: Path) -> None:
    directories = (str(tmp_path / "none"), str(tmp_path))
    assert hosts.load("a.example:5000", directories) == Hosts()
    (tmp_path / "_default").mkdir()
    (tmp_path / "_default/hosts.toml").write_text('[host."https://m.example"]\n')
    assert hosts.load("a.example:5000", directories).mirrors[0].host == "m.example"
    (tmp_path / "a.example:5000").mkdir()
    (tmp_path / "a.example:5000/hosts.toml").write_text("")
    assert hosts.load("a.example:5000", directories) == Hosts()


@pytest.mark.parametrize(
    "text",
    [
        "server = 1",
        "host = 1",
        'host = {"https://a" = 1}',
        '[host."ftp://a.example"]',
        '[host."https://"]',
        '[host."https://user@a.example"]',
        '[host."https://a"]\ncapabilities = "pull"',
        '[host."https://a"]\nca = 7',
        '[host."https://a"]\nheader = 7',
        '[host."https://a"]\nheader = {"a\\n" = "b"}',
        '[host."https://a"]\nheader = {"a" = "b\\r\\nc: d"}',
        "= not TOML",
        "\x00",
    ],
)
def test_what_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"hosts\.toml"):
        hosts.parse(text.encode(), "/x/hosts.toml")


values = st.recursive(
    st.booleans() | st.integers(0, 9) | st.text("ab/:.-@", max_size=6),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
names = st.sampled_from(
    ["server", "capabilities", "ca", "client", "skip_verify", "header", "override_path", "other"]
)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


@given(st.text("ab/:.[]@-", max_size=9), st.dictionaries(names, values, max_size=4))
def test_any_table_is_parsed_or_refused(url: str, table: dict[str, object]) -> None:
    lines = [f"{name} = {_toml(value)}" for name, value in table.items()]
    text = "\n".join([f'[host."{url}"]', *lines])
    try:
        found = hosts.parse(text.encode(), "/x/hosts.toml")
    except ConfigError:
        return
    assert len(found.mirrors) == 1 and found.mirrors[0].host
