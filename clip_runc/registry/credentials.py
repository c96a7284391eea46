"""What docker, podman and their helpers know of registry passwords.

Read by a process of root, which passes what it found (``Credentials.to_dict``) over a socket
to the unprivileged process that talks to the registry.  Standard library only, because
clipd's supervisor imports it.  A secret never gets into an argv, an environment, a message
or a ``repr``.

Sources, first hit wins (containers-auth.json(5), docker-login(1)): ``$REGISTRY_AUTH_FILE``,
``$XDG_RUNTIME_DIR/containers/auth.json``, ``/run/containers/<uid>/auth.json``,
``~/.config/containers/auth.json``, ``$DOCKER_CONFIG/config.json``, ``~/.docker/config.json``; then
``Settings.credentials_dir``.
"""

from __future__ import annotations

import base64
import json
import os
import re

from clip_runc.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HELPER_SECONDS = 10.0
_FILE_LIMIT = 1 << 20
_OUTPUT_LIMIT = 1 << 20
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEYS = (
    "https://index.docker.io/v1/",
    "index.docker.io",
    "registry-1.docker.io",
    "docker.io",
)


class Credentials:
    """A way to prove who we are to a registry.

    Either ``username`` and ``password``, or an ``identity_token`` (an OAuth2 refresh token),
    or a ``registry_token`` (a bearer token, sent as it is).  ``repr`` shows no secret.
    """

    __slots__ = ("identity_token", "password", "registry_token", "username")

    def __init__(
        self,
        username: str = "",
        password: str = "",
        identity_token: str = "",
        registry_token: str = "",
    ) -> None:
        self.username = username
        self.password = password
        self.identity_token = identity_token
        self.registry_token = registry_token

    def basic(self) -> str:
        """The value of a Basic ``Authorization`` header (RFC 7617), ``""`` without password."""
        if not self.username or not self.password:
            return ""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def to_dict(self) -> dict[str, str]:
        """For a socket to a process of ours.  Holds the secret in the clear."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Credentials:
        """The reverse of ``to_dict``; raises ``ConfigError`` for anything else."""
        for name, value in values.items():
            if name not in cls.__slots__ or not isinstance(value, str):
                raise ConfigError(f"credentials with a field {name!r} of {type(value).__name__}")
        return cls(**values)  # type: ignore[arg-type]  # each value was found to be a str above

    def __repr__(self) -> str:
        kinds = [n for n in ("password", "identity_token", "registry_token") if getattr(self, n)]
        return f"Credentials(username={self.username!r}, {', '.join(kinds) or 'no secret'})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Credentials) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.to_dict().items())))


class Keychain:
    """The files found, parsed, in the order in which they are asked."""

    def __init__(
        self,
        files: list[tuple[str, dict[str, object]]],
        search_path: str | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._files = files
        self._search_path = search_path
        self._warn = warn or (lambda message: None)

    def find(self, registry: str, repository: str = "") -> Credentials | None:
        """What is known for ``repository`` at ``registry`` (``host[:port]``), or ``None``.

        A helper that fails, hangs or talks rubbish counts as one that knows nothing; the
        reason goes to ``warn``.
        """
        for path, config in self._files:
            found = self._from_file(path, config, registry, repository)
            if found is not None:
                return found
        return None

    def _from_file(
        self, path: str, config: dict[str, object], registry: str, repository: str
    ) -> Credentials | None:
        helper = _helper_for(config, registry)
        if helper is not None:
            for key in _server_keys(registry):
                found = self._ask_helper(helper, key)
                if found is not None:
                    return found
        auths = config.get("auths")
        if not isinstance(auths, dict):
            return None
        entry = _best_entry(auths, registry, repository)
        if entry is None:
            return None
        try:
            return _from_entry(entry)
        except ConfigError as error:
            self._warn(f"{path}: {registry}: {error}")
            return None

    def _ask_helper(self, name: str, server: str) -> Credentials | None:
        try:
            return ask_helper(name, server, search_path=self._search_path)
        except ConfigError as error:
            self._warn(str(error))
            return None


def load(
    env: Mapping[str, str] | None = None,
    home: str | None = None,
    warn: Callable[[str], None] | None = None,
    directory: str = "",
) -> Keychain:
    """Read every credential file that is there, and those in ``directory``.

    ``env`` (default ``os.environ``) gives the variables that name files and the ``PATH`` for
    helpers; ``home`` defaults to ``$HOME``.  A file that cannot be read or parsed is skipped
    with a word to ``warn``; the one that ``$REGISTRY_AUTH_FILE`` names raises ``ConfigError``.
    """
    env = os.environ if env is None else env
    home = env.get("HOME", "") if home is None else home
    files: list[tuple[str, dict[str, object]]] = []
    named = env.get("REGISTRY_AUTH_FILE")
    for path in _candidates(env, home):
        try:
            config = _read(path)
        except FileNotFoundError:
            if path == named:
                raise ConfigError(f"REGISTRY_AUTH_FILE={path}: no such file") from None
            continue
        except ConfigError as error:
            if path == named:
                raise
            if warn is not None:
                warn(str(error))
            continue
        files.append((path, config))
    if directory:
        from clip_runc.registry.credentials_dir import read

        files.append((directory, read(directory, warn or (lambda message: None))))
    return Keychain(files, env.get("PATH"), warn)


def lookup(registry: str, repository: str = "", directory: str = "") -> Credentials | None:
    """``load().find(…)`` with the environment of this process."""
    return load(directory=directory).find(registry, repository)


def ask_helper(
    name: str, server: str, *, search_path: str | None = None, seconds: float = HELPER_SECONDS
) -> Credentials | None:
    """Run ``docker-credential-<name> get`` with ``server`` on its standard input.

    ``None`` when it says that it has nothing.  Raises ``ConfigError`` when the program is
    missing, takes longer than ``seconds``, fails, or prints what is not understood.
    Protocol: github.com/docker/docker-credential-helpers.
    """
    import subprocess

    program = _find_helper(name, search_path)
    try:
        done = subprocess.run(
            [program, "get"],
            check=False,
            input=server.encode(),
            capture_output=True,
            timeout=seconds,
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{program}: no answer within {seconds:g} s") from None
    except OSError as error:
        raise ConfigError(f"{program}: {error.strerror}") from None
    if done.returncode != 0:
        if b"credentials not found" in done.stdout + done.stderr:
            return None
        raise ConfigError(f"{program}: exit status {done.returncode} when asked for {server}")
    return _from_helper(program, done.stdout)


def _find_helper(name: str, search_path: str | None) -> str:
    import shutil

    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ConfigError(f"{name!r} is not the name of a credential helper")
    found = shutil.which(f"docker-credential-{name}", path=search_path)
    # A relative PATH entry would run a program out of whatever directory we are in.
    if found is None or not os.path.isabs(found):
        raise ConfigError(f"docker-credential-{name}: not found in PATH")
    return found


def _from_helper(program: str, output: bytes) -> Credentials | None:
    if len(output) > _OUTPUT_LIMIT:
        raise ConfigError(f"{program}: printed {len(output)} bytes")
    try:
        answer = json.loads(output)
    except ValueError:
        # Not chained and not quoted: what a helper prints may hold the secret.
        raise ConfigError(f"{program}: printed something that is not JSON") from None
    user, secret = (
        (answer.get("Username"), answer.get("Secret")) if isinstance(answer, dict) else (None, None)
    )
    if not isinstance(user, str) or not isinstance(secret, str):
        raise ConfigError(f"{program}: printed no Username and Secret")
    if not secret:
        return None
    if user == "<token>":
        return Credentials(identity_token=secret)
    return Credentials(user, secret)


def _candidates(env: Mapping[str, str], home: str) -> list[str]:
    paths = []
    if env.get("REGISTRY_AUTH_FILE"):
        paths.append(env["REGISTRY_AUTH_FILE"])
    if env.get("XDG_RUNTIME_DIR"):
        paths.append(f"{env['XDG_RUNTIME_DIR']}/containers/auth.json")
    paths.append(f"/run/containers/{os.getuid()}/auth.json")
    config_home = env.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    if config_home:
        paths.append(f"{config_home}/containers/auth.json")
    docker = env.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
    if docker:
        paths.append(f"{docker}/config.json")
    return paths


def _read(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(data) > _FILE_LIMIT:
        raise ConfigError(f"{path}: larger than {_FILE_LIMIT} bytes")
    try:
        config = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: not JSON") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: not a JSON object")
    return config


def _server_keys(registry: str) -> tuple[str, ...]:
    return _DOCKER_HUB_KEYS if registry == _DOCKER_HUB else (registry,)


def _helper_for(config: dict[str, object], registry: str) -> str | None:
    helpers = config.get("credHelpers")
    if isinstance(helpers, dict):
        for key in _server_keys(registry):
            if isinstance(helpers.get(key), str) and helpers[key]:
                return str(helpers[key])
    store = config.get("credsStore")
    return store if isinstance(store, str) and store else None


def _normal_key(key: str) -> str:
    """``https://host/v1/`` (what docker writes) and ``host/a/b`` (podman) in one form."""
    key = re.sub(r"^https?://", "", key)
    host, _, path = key.partition("/")
    path = re.sub(r"^v[12](/|$)", "", path).rstrip("/")
    if host in _DOCKER_HUB_KEYS:
        host = _DOCKER_HUB
    return f"{host}/{path}" if path else host


def _best_entry(
    auths: dict[object, object], registry: str, repository: str
) -> dict[str, object] | None:
    """The entry whose key is the longest prefix of ``registry/repository``, by components."""
    wanted = f"{registry}/{repository}/"
    best: tuple[int, dict[str, object]] | None = None
    for key, entry in auths.items():
        normal = _normal_key(str(key))
        if not isinstance(entry, dict) or not entry or not wanted.startswith(f"{normal}/"):
            continue
        if best is None or len(normal) > best[0]:
            best = len(normal), entry
    return best[1] if best else None


def _from_entry(entry: dict[str, object]) -> Credentials | None:
    def text(name: str) -> str:
        value = entry.get(name)
        return value if isinstance(value, str) else ""

    user, password = text("username"), text("password")
    if text("auth"):
        user, password = _decode_auth(text("auth"))
    found = Credentials(user, password, text("identitytoken"), text("registrytoken"))
    return found if password or found.identity_token or found.registry_token else None


def _decode_auth(value: str) -> tuple[str, str]:
    try:
        user, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:  # of base64 for no ASCII, of binascii for no base64, of decode()
        raise ConfigError("its auth field is not base64") from None
    if not colon:
        raise ConfigError("its auth field holds no user:password")
    # docker pads the password with NULs on some platforms and strips them itself
    return user, password.rstrip("\0")
