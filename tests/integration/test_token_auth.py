"""docker-registry with token authentication, and a token server that signs for it.

Source: distribution, docs/spec/auth/token.md and jwt.md.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.integration.busybox_images import CONTENT
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry, free_port
from tests.integration.prerequisites import need

USER, PASSWORD, REFRESH = "user", "pass-that-is-nowhere-else", "refresh-that-is-nowhere-else"
SERVICE, ISSUER = "test registry", "test issuer"
LEEWAY = 60  # seconds that docker-registry accepts a token after its end


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """Gives tokens to who has the password, or the refresh token; ``expired`` ones at will."""

    def __init__(self, directory: Path) -> None:
        self.certificate = directory / "token.crt"
        key = directory / "token.key"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        command += ["ec_paramgen_curve:P-256", "-noenc", "-days", "2", "-subj", "/CN=tokens"]
        command += ["-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)
        private = load_pem_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        self.key = private
        pem = self.certificate.read_text().split("-----")[2]
        self.header = {"typ": "JWT", "alg": "ES256", "x5c": ["".join(pem.split())]}
        self.expired = 0
        self.given = 0
        self.grants: set[str] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                ok = self.headers.get("Authorization") == f"Basic {basic}"
                self._answer("password" if ok else "", query.get("scope", []))

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                form = parse_qs(self.rfile.read(size).decode())
                ok = form.get("refresh_token") == [REFRESH]
                scopes = [one for entry in form.get("scope", []) for one in entry.split()]
                self._answer("refresh" if ok else "", scopes)

            def _answer(self, grant: str, scopes: list[str]) -> None:
                body = server.answer(grant, scopes) if grant else {"details": "wrong password"}
                data = json.dumps(body).encode()
                self.send_response(200 if grant else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                """Nobody reads it."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self.http.server_address[1]}/token"
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.thread.start()

    def answer(self, grant: str, scopes: list[str]) -> dict[str, object]:
        """A token for what is asked for, as the registry wants it signed."""
        self.given += 1
        self.grants.add(grant)
        now = int(time.time())
        ends = now + 300
        if self.expired:
            self.expired -= 1
            ends = now - 2 * LEEWAY
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        claims = {
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "exp": ends, "nbf": now - 600,
            "iat": now - 600, "jti": str(self.given), "access": access,
        }  # fmt: skip
        signed = ".".join(encoded(json.dumps(part).encode()) for part in (self.header, claims))
        numbers = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(SHA256())))
        signature = b"".join(number.to_bytes(32, "big") for number in numbers)
        token = f"{signed}.{encoded(signature)}"
        return {"token": token, "access_token": token, "expires_in": 300}

    def stop(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    need("openssl")
    server = TokenServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def guarded(
    tmp_path: Path, scratch: Path, registry: DockerRegistry, tokens: TokenServer
) -> Iterator[DockerRegistry]:
    """The storage of ``registry``, for those with a token."""
    directory = tmp_path / "guarded"
    directory.mkdir()
    (directory / "storage").symlink_to(scratch / "registry/storage")
    auth = {
        "realm": tokens.realm, "service": SERVICE, "issuer": ISSUER,
        "rootcertbundle": str(tokens.certificate),
    }  # fmt: skip
    more = f"auth: {json.dumps({'token': auth})}\n"
    daemon = DockerRegistry(directory, free_port(), more=more)
    yield daemon
    daemon.stop()


def log_in(clip: ClipMachine, host: str, entry: dict[str, str]) -> None:
    docker = clip.directory / "docker"
    docker.mkdir(exist_ok=True)
    (docker / "config.json").write_text(json.dumps({"auths": {host: entry}}))
    clip.environ["DOCKER_CONFIG"] = str(docker)


def basic(password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}


@pytest.mark.parametrize("grant", ["password", "refresh"])
def test_a_container_by_tokens(
    clip: ClipMachine, tokens: TokenServer, guarded: DockerRegistry, busybox_ref: str, grant: str
) -> None:
    """With a password or an identity token; tokens that are over are asked for again."""
    reference = f"{guarded.host}/{busybox_ref.partition('/')[2]}"
    log_in(clip, guarded.host, basic("wrong"))
    denied = clip.ctl("index", reference)
    assert (denied.returncode, "access denied" in denied.stderr) == (1, True), denied.stderr
    assert tokens.given == 0

    right = basic(PASSWORD) if grant == "password" else {"identitytoken": REFRESH}
    log_in(clip, guarded.host, right)
    bundle = clip.bundle(reference, "/bin/cat", "/srv/data/a")
    assert tokens.given > 0
    tokens.expired = 1
    done = clip.runc("run", "-b", bundle, "by-token")
    assert (done.returncode, done.stdout.encode()) == (0, CONTENT["a"]), done.stderr
    assert clip.status()["fetched"] > 0
    assert (tokens.expired, tokens.grants) == (0, {grant})
    clip.ctl("stop", check=True)
    secrets = (PASSWORD.encode(), REFRESH.encode())
    for directory in (clip.run_dir, clip.state):
        for path in directory.rglob("*"):
            if path.is_file():
                assert not any(one in path.read_bytes() for one in secrets)
