"""What the fake registry answers: the OCI distribution API, a token server, the faults."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from clip_runc.registry.image import OCI_INDEX

if TYPE_CHECKING:
    from clip_runc.registry.fake import FakeRegistry, Fault

_NAME = r"/v2/(?P<name>[a-z0-9._/-]+?)"
_PIECE = 1 << 20


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a head and a body in two packets would wait for an ACK
    timeout = 60
    server: Any  # a ThreadingHTTPServer with ``fake``

    @property
    def fake(self) -> FakeRegistry:
        fake: FakeRegistry = self.server.fake
        return fake

    def log_message(self, *args: object) -> None:
        """Nothing: tests look at ``FakeRegistry.seen``."""

    def do_GET(self) -> None:
        self._dispatch()

    def do_HEAD(self) -> None:
        self._dispatch()

    def do_POST(self) -> None:
        self._dispatch()

    def do_PUT(self) -> None:
        self._dispatch()

    def do_PATCH(self) -> None:
        self._dispatch()

    def _dispatch(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.fault = self.fake.take_fault(self.command, url.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.fault and self._misbehave(self.fault):
            return
        if url.path == "/token":
            self._token()
            return
        if not self._authorized():
            self._challenge()
            return
        if self.fault and self.fault.kind == "redirect":
            self._answer(307, {"Location": f"{self.fault.value}{self.path}"})
            return
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, url.path)
            if match:
                getattr(self, method)(**match.groupdict())
                return
        self._error(404, "NAME_UNKNOWN")

    def _misbehave(self, fault: Fault) -> bool:
        """Whether the fault was the whole answer."""
        if fault.kind == "stall":
            self.fake.stopping.wait(float(fault.value))
            return False
        if fault.kind == "close":
            self._record(0)
            self.close_connection = True
            return True
        if fault.kind == "status":
            self._error(int(fault.value), "FAULT", fault.headers)
            return True
        return False

    # Authorization

    def _authorized(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.fake.auth == "basic":
            return given == self._basic()
        if self.fake.auth == "token":
            with self.fake.lock:
                return given.removeprefix("Bearer ") in self.fake.tokens
        return True

    def _basic(self) -> str:
        pair = f"{self.fake.username}:{self.fake.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def _challenge(self) -> None:
        if self.fake.auth == "basic":
            value = 'Basic realm="fake"'
        else:
            match = re.match(_NAME + r"/(blobs|manifests|referrers)/", urlsplit(self.path).path)
            actions = "pull" if self.command in ("GET", "HEAD") else "pull,push"
            realm = self.fake.token_realm or f"{self.fake.url}/token"
            scope = f"repository:{match['name'] if match else ''}:{actions}"
            value = f'Bearer realm="{realm}",service="fake",scope="{scope}"'
        self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": value})

    def _token(self) -> None:
        form = {n: v[0] for n, v in parse_qs(self.body.decode()).items()}
        given = self.headers.get("Authorization", "")
        ok = (
            form.get("refresh_token") == self.fake.refresh_token
            if self.fake.refresh_token
            else not self.fake.password
            or given == self._basic()
            or (form.get("password") == self.fake.password)
        )
        if not ok:
            self._error(401, "UNAUTHORIZED")
            return
        answer: dict[str, object] = {"token": self.fake.new_token()}
        if self.fake.token_life is not None:
            answer["expires_in"] = self.fake.token_life
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    # Reading

    def _base(self) -> None:
        self._answer(200, {}, b"{}")

    def _get_manifest(self, name: str, version: str) -> None:
        if self.command == "PUT":
            kind = self.headers.get("Content-Type", "")
            digest = self.fake.add_manifest(name, version, self.body, kind)
            headers = {"Docker-Content-Digest": digest}
            subject = _json(self.body).get("subject")
            if self.fake.referrers and subject:
                headers["OCI-Subject"] = subject["digest"]
            self._answer(201, headers)
            return
        with self.fake.lock:
            data, kind = self.fake.manifests.get((name, version), (b"", ""))
        if not kind:
            self._error(404, "MANIFEST_UNKNOWN")
            return
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._answer(200, {"Content-Type": kind, "Docker-Content-Digest": digest}, data)

    def _get_referrers(self, name: str, digest: str) -> None:
        if not self.fake.referrers:
            self._error(404, "NAME_UNKNOWN")
            return
        with self.fake.lock:
            held = [
                (version, kind, data)
                for (where, version), (data, kind) in self.fake.manifests.items()
                if where == name and version.startswith("sha256:")
            ]
        entries = []
        for version, kind, data in held:
            manifest = _json(data)
            if (manifest.get("subject") or {}).get("digest") == digest:
                entry = {"mediaType": kind, "digest": version, "size": len(data)}
                more = {k: manifest[k] for k in ("artifactType", "annotations") if k in manifest}
                entries.append(entry | more)
        start = int(self.query.get("from", "0"))
        headers = {"Content-Type": OCI_INDEX}
        if start + 2 < len(entries):
            headers["Link"] = f'<{urlsplit(self.path).path}?from={start + 2}>; rel="next"'
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries[start : start + 2]}
        self._answer(200, headers, json.dumps(body).encode())

    def _get_blob(self, name: str, digest: str) -> None:
        with self.fake.lock:
            data = self.fake.blobs.get(digest)
        if data is None:
            self._error(404, "BLOB_UNKNOWN")
            return
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        match = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range", ""))
        if match is None or (self.fault and self.fault.kind == "ignore_range"):
            self._answer(200, headers, data)
            return
        start = int(match[1])
        end = min(int(match[2]) + 1 if match[2] else len(data), len(data))
        if start >= end:
            self._error(416, "RANGE_INVALID")
            return
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        if self.fault and self.fault.kind == "content_range":
            headers["Content-Range"] = str(self.fault.value)
        self._answer(206, headers, memoryview(data)[start:end])

    # Writing

    def _start_upload(self, name: str) -> None:
        with self.fake.lock:
            mountable = self.query.get("mount") in self.fake.blobs
        if mountable:
            self._answer(201, {"Location": f"/v2/{name}/blobs/{self.query['mount']}"})
            return
        session = secrets.token_hex(8)
        with self.fake.lock:
            self.fake.uploads[session] = bytearray()
        self._answer(202, {"Location": f"/v2/{name}/blobs/uploads/{session}?state=x"})

    def _upload(self, name: str, session: str) -> None:
        with self.fake.lock:
            buffer = self.fake.uploads.get(session)
            if buffer is not None:
                buffer += self.body
        if buffer is None:
            self._error(404, "BLOB_UPLOAD_UNKNOWN")
        elif self.command == "PATCH":
            self._answer(202, {"Location": f"{self.fake.url}{self.path}"})
        elif self.query.get("digest") != f"sha256:{hashlib.sha256(buffer).hexdigest()}":
            self._error(400, "DIGEST_INVALID")
        else:
            digest = self.fake.add_blob(bytes(buffer))
            self._answer(201, {"Docker-Content-Digest": digest})

    # Sending

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": f"{code} (fake)"}]}).encode()
        self._answer(status, {"Content-Type": "application/json", **(headers or {})}, body)

    def _answer(self, status: int, headers: dict[str, str], body: bytes | memoryview = b"") -> None:
        self._record(status)
        if self.fault and self.fault.kind == "headers":
            headers = {**headers, **self.fault.headers}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(body)

    def _send_body(self, body: bytes | memoryview) -> None:
        fault = self.fault
        if fault and fault.kind == "flip":
            flipped = bytearray(body)
            flipped[int(fault.value) % max(len(flipped), 1)] ^= 1
            body = bytes(flipped)
        if fault and fault.kind == "short":
            self._write(body[: int(fault.value)])
            self.close_connection = True
            return
        if fault and fault.kind == "stall_body":
            self._write(body[: len(body) // 2])
            self.fake.stopping.wait(float(fault.value))
            body = body[len(body) // 2 :]
        if fault and fault.kind == "drip":
            for position in range(len(body)):
                self._write(body[position : position + 1])
                if self.fake.stopping.wait(float(fault.value)):
                    return
            return
        self._write(body)

    def _write(self, body: bytes | memoryview) -> None:
        view = memoryview(body)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            # Counted first: the client may look before this thread runs again.
            with self.fake.lock:
                self.fake.bytes_sent += len(piece)
            try:
                self.wfile.write(piece)
            except OSError:
                self.close_connection = True
                return

    def _record(self, status: int) -> None:
        from clip_runc.registry.fake import Seen

        host = self.headers.get("Host", "")
        seen = Seen(self.command, self.path, host, dict(self.headers.items()), status)
        with self.fake.lock:
            self.fake.seen.append(seen)


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


_ROUTES = (
    (r"/v2/?", "_base"),
    (_NAME + r"/manifests/(?P<version>[^/]+)", "_get_manifest"),
    (_NAME + r"/referrers/(?P<digest>sha256:[0-9a-f]+)", "_get_referrers"),
    (_NAME + r"/blobs/uploads/", "_start_upload"),
    (_NAME + r"/blobs/uploads/(?P<session>[0-9a-f]+)", "_upload"),
    (_NAME + r"/blobs/(?P<digest>sha256:[0-9a-f]+)", "_get_blob"),
)
