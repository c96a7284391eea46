from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import ConfigError
from clip_runc.registry import credentials
from clip_runc.registry.credentials import Credentials, Keychain, ask_helper, load, lookup


def auth(user: str, password: str) -> dict[str, object]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def keychain(config: dict[str, object], warnings: list[str] | None = None) -> Keychain:
    return Keychain([("x", config)], warn=None if warnings is None else warnings.append)


def write(path: Path, config: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def helper(directory: Path, name: str, script: str) -> str:
    path = directory / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def test_repr_hides_secrets() -> None:
    secret = Credentials("me", "hunter2", "idtoken", "regtoken")
    for text in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert "hunter2" not in text
        assert "idtoken" not in text
        assert "regtoken" not in text
    assert "me" in repr(secret)


def test_dict_roundtrip() -> None:
    secret = Credentials("me", "hunter2")
    assert Credentials.from_dict(json.loads(json.dumps(secret.to_dict()))) == secret
    assert hash(Credentials.from_dict(secret.to_dict())) == hash(secret)


@pytest.mark.parametrize("values", [{"user": "x"}, {"username": 1}])
def test_from_dict_refuses(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Credentials.from_dict(values)


def test_basic() -> None:
    assert Credentials("a", "b").basic() == "Basic YTpi"
    assert Credentials(identity_token="x").basic() == ""


@pytest.mark.parametrize(
    ("registry", "repository", "user"),
    [
        ("docker.io", "library/ubuntu", "hub"),
        ("reg.example", "other", "whole"),
        ("reg.example", "team/app", "team"),
        ("reg.example", "team/app/deep", "team"),
        ("reg.example", "teamwork", "whole"),
        ("old.example:5000", "x", "old"),
        ("unknown.example", "x", None),
        ("reg.example.evil", "x", None),
    ],
)
def test_longest_prefix_wins(registry: str, repository: str, user: str | None) -> None:
    config: dict[str, object] = {
        "auths": {
            "https://index.docker.io/v1/": auth("hub", "1"),
            "reg.example": auth("whole", "2"),
            "reg.example/team": auth("team", "3"),
            "https://old.example:5000/v2/": auth("old", "4"),
        }
    }
    found = keychain(config).find(registry, repository)
    assert (found.username if found else None) == user


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io"])
def test_docker_hub_aliases(key: str) -> None:
    found = keychain({"auths": {key: auth("hub", "x")}}).find("docker.io", "library/ubuntu")
    assert found == Credentials("hub", "x")


def test_password_with_colon_and_identity_token() -> None:
    entry = {**auth("me", "a:b:c"), "identitytoken": "refresh"}
    found = keychain({"auths": {"h": entry}}).find("h")
    assert found == Credentials("me", "a:b:c", identity_token="refresh")


def test_damaged_entries_count_as_none() -> None:
    warnings: list[str] = []
    damaged: dict[str, object] = {"a": "%%%", "b": "YQ==", "d": "\x80"}
    entries = {host: {"auth": text} for host, text in damaged.items()}
    chain = keychain({"auths": {**entries, "c": {}}}, warnings)
    assert all(chain.find(host) is None for host in "abcd")
    assert len(warnings) == len(damaged)


def test_files_in_order(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write(home / ".docker/config.json", {"auths": {"h": auth("docker", "x"), "i": auth("i", "x")}})
    env = {"PATH": ""}
    assert load(env, str(home)).find("h") == Credentials("docker", "x")
    write(home / ".config/containers/auth.json", {"auths": {"h": auth("podman", "x")}})
    assert load(env, str(home)).find("h") == Credentials("podman", "x")
    env["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
    write(tmp_path / "run/containers/auth.json", {"auths": {"h": auth("runtime", "x")}})
    assert load(env, str(home)).find("h") == Credentials("runtime", "x")
    named = write(tmp_path / "named.json", {"auths": {"h": auth("named", "x")}})
    env["REGISTRY_AUTH_FILE"] = str(named)
    assert load(env, str(home)).find("h") == Credentials("named", "x")
    assert load(env, str(home)).find("i") == Credentials("i", "x")
    write(tmp_path / "docker/config.json", {"auths": {"i": auth("moved", "x")}})
    env["DOCKER_CONFIG"] = str(tmp_path / "docker")
    assert load(env, str(home)).find("i") == Credentials("moved", "x")


def test_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load({"REGISTRY_AUTH_FILE": str(tmp_path / "none")}, str(tmp_path))


def test_damaged_file_is_skipped_or_if_named_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / ".docker/config.json", "{secret")
    warnings: list[str] = []
    assert load({}, str(tmp_path), warnings.append).find("h") is None
    assert "not JSON" in warnings[0]
    assert "secret" not in warnings[0]
    with pytest.raises(ConfigError, match="not JSON"):
        load({"REGISTRY_AUTH_FILE": str(path)}, str(tmp_path))


def test_lookup_reads_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "auth.json", {"auths": {"h": auth("me", "x")}})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
    assert lookup("h", "a/b") == Credentials("me", "x")


def test_helper(tmp_path: Path) -> None:
    path = helper(
        tmp_path,
        "mine",
        'read server; echo "$@" > ' + str(tmp_path / "args") + "\n"
        """printf '{"Username": "u", "Secret": "%s"}' "$server" """,
    )
    config: dict[str, object] = {"credHelpers": {"h:5000": "mine"}}
    assert Keychain([("x", config)], path).find("h:5000") == Credentials("u", "h:5000")
    assert Keychain([("x", config)], path).find("other") is None
    assert (tmp_path / "args").read_text() == "get\n"


def test_store_with_identity_token_and_docker_hub_key(tmp_path: Path) -> None:
    path = helper(
        tmp_path,
        "store",
        "read s; case $s in https://index.docker.io/v1/) ;; *)\n"
        "echo credentials not found; exit 1;; esac\n"
        """echo '{"Username": "<token>", "Secret": "refresh"}'""",
    )
    chain = Keychain([("x", {"credsStore": "store"})], path)
    assert chain.find("docker.io") == Credentials(identity_token="refresh")
    assert chain.find("other") is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo rubbish", "not JSON"),
        ("echo '[]'", "no Username"),
        ("""echo '{"Username": 1, "Secret": "s"}'""", "no Username"),
        ("exit 3", "exit status 3"),
        ("head -c 2000000 /dev/zero", "printed 2000000 bytes"),
        ("exec sleep 20", "no answer within 0.2 s"),
    ],
)
def test_bad_helper(tmp_path: Path, script: str, reason: str) -> None:
    path = helper(tmp_path, "bad", script)
    with pytest.raises(ConfigError, match=reason):
        ask_helper("bad", "h", search_path=path, seconds=0.2 if "sleep" in script else 10)


def test_helper_that_fails_counts_as_none(tmp_path: Path) -> None:
    warnings: list[str] = []
    path = helper(tmp_path, "bad", "echo hunter2; exit 1")
    config: dict[str, object] = {"credsStore": "bad", "auths": {"h": auth("me", "x")}}
    chain = Keychain([("x", config)], path, warnings.append)
    assert chain.find("h") == Credentials("me", "x")
    assert "hunter2" not in "".join(warnings)


@pytest.mark.parametrize("name", ["../evil", "a b", "", "x/y", "none-such"])
def test_helper_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        ask_helper(name, "h", search_path=str(tmp_path))


def test_helper_in_a_relative_path_entry_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, "here", "echo '{}'")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="not found"):
        ask_helper("here", "h", search_path=".")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["auths", "auth", "h", "username", "credHelpers", "identitytoken"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["auths", "credHelpers", "credsStore"]), json_values))
def test_any_json_gives_credentials_or_none(config: dict[str, object]) -> None:
    found = Keychain([("x", config)], search_path="/nonexistent").find("h", "a/b")
    assert found is None or isinstance(found, Credentials)


def test_module_imports_nothing_but_the_standard_library() -> None:
    source = Path(credentials.__file__).read_text()
    imported = {
        line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))
    }
    assert imported <= {"__future__", "base64", "binascii", "json", "os", "re", "clip_runc.errors"}
