"""A registry for tests: real HTTP on loopback, blobs in memory, faults on demand.

::

    with FakeRegistry() as fake:
        image = fake.add_image("team/app", "1.0", [layer_bytes])
        fake.fault("status", 500, times=2, on="/blobs/")
        Registry(fake.reference("team/app", "1.0")).resolve()

Faults are consumed in the order in which they were added; ``times=-1`` means for ever.  Kinds:

=================  ============================================================================
``status``         answer with this status (``value``); ``headers`` may hold a Retry-After
``stall``          send nothing for ``value`` seconds, then answer
``stall_body``     stop for ``value`` seconds in the middle of the body
``drip``           send the body one byte every ``value`` seconds
``short``          close the connection after ``value`` bytes of the body
``flip``           XOR 1 into the byte at ``value`` of the body
``ignore_range``   200 and the whole blob, whatever was asked for
``content_range``  the header says ``value``
``close``          close the connection without an answer
``redirect``       307 to ``value`` (an URL without the path); the target serves the same blobs
``headers``        add ``headers`` to the answer
=================  ============================================================================
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer

from clip_runc.registry.fake_handler import Handler
from clip_runc.registry.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from clip_runc.registry.reference import Reference


@dataclass
class Fault:
    """One misbehaviour: see the table of the module."""

    kind: str
    value: float | int | str = 0
    times: int = 1
    on: str = ""
    method: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A request as it came in: its head, and the status of the answer."""

    method: str
    path: str
    host: str
    headers: dict[str, str]
    status: int


class FakeRegistry:
    """A registry on ``127.0.0.1``, in threads of this process; a context manager.

    ``auth`` is ``""``, ``"basic"`` or ``"token"`` (a token server at ``/token``); ``username`` and
    ``password`` are what it takes, and with ``"token"`` and no password anybody gets a token.
    ``certificate`` (paths of certificate and key) makes it speak TLS.  With ``storage`` it serves
    the blobs of another fake: the object storage that the other redirects to.  ``referrers``: it
    has the referrers API (two entries a page).
    """

    def __init__(
        self,
        *,
        auth: str = "",
        username: str = "user",
        password: str = "",
        refresh_token: str = "",
        certificate: tuple[str, str] | None = None,
        storage: FakeRegistry | None = None,
        address: str = "127.0.0.1",
        referrers: bool = False,
    ) -> None:
        self.auth, self.username, self.password = auth, username, password
        self.refresh_token = refresh_token
        self.referrers = referrers
        self.blobs: dict[str, bytes] = storage.blobs if storage else {}
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = (
            storage.manifests if storage else {}
        )
        self.uploads: dict[str, bytearray] = {}
        self.tokens: set[str] = set()
        self.token_life: int | None = 300
        self.token_realm = ""
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.bytes_sent = 0
        self.connections = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._server = _Server((address, 0), Handler)
        self._server.fake = self
        self.tls = certificate is not None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.tls = context
        self.host = f"{address}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> FakeRegistry:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port and every connection.  The blobs stay readable from Python."""
        self.stopping.set()
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join(5)

    # What it holds

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def reference(self, repository: str = "team/app", version: str = "latest") -> Reference:
        """A reference to an image here, by tag or digest."""
        mark = "@" if version.startswith("sha256:") else ":"
        return Reference.parse(f"{self.host}/{repository}{mark}{version}")

    def add_blob(self, data: bytes) -> str:
        """Hold these bytes in every repository; their digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with self.lock:
            self.blobs[digest] = data
        return digest

    def add_manifest(
        self, repository: str, tag: str, body: Mapping[str, object] | bytes, media_type: str
    ) -> str:
        """Hold a manifest under its tag and its digest; the digest."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with self.lock:
            for version in (tag, digest):
                self.manifests[repository, version] = data, media_type
        return digest

    def add_image(
        self,
        repository: str,
        tag: str,
        layers: Sequence[bytes],
        *,
        config: Mapping[str, object] | None = None,
        diff_ids: Sequence[str] | None = None,
        layer_type: str = OCI_LAYER_GZIP,
        media_type: str = OCI_MANIFEST,
        config_type: str = OCI_CONFIG,
    ) -> str:
        """Hold an image; the digest of its manifest.

        ``diff_ids`` default to the digests of the blobs, as if they were not compressed.
        """
        digests = [self.add_blob(layer) for layer in layers]
        filled = {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids or digests)},
            **(config or {}),
        }
        body = json.dumps(filled, sort_keys=True).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {
                "mediaType": config_type,
                "digest": self.add_blob(body),
                "size": len(body),
            },
            "layers": [
                {"mediaType": layer_type, "digest": digest, "size": len(layer)}
                for digest, layer in zip(digests, layers, strict=True)
            ],
        }
        return self.add_manifest(repository, tag, manifest, media_type)

    def add_index(
        self,
        repository: str,
        tag: str,
        entries: Sequence[tuple[str, Mapping[str, object] | None]],
        *,
        media_type: str = OCI_INDEX,
    ) -> str:
        """Hold an index of manifests that are here: (digest, platform object or ``None``)."""
        manifests = []
        for digest, platform in entries:
            data, kind = self.manifests[repository, digest]
            entry: dict[str, object] = {"mediaType": kind, "digest": digest, "size": len(data)}
            if platform is not None:
                entry["platform"] = dict(platform)
            manifests.append(entry)
        body = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
        return self.add_manifest(repository, tag, body, media_type)

    # How it misbehaves

    def fault(
        self,
        kind: str,
        value: float | int | str = 0,
        *,
        times: int = 1,
        on: str = "/blobs/",
        method: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Misbehave at the next ``times`` requests whose path contains ``on``."""
        fault = Fault(kind, value, times, on, method, dict(headers or {}))
        with self.lock:
            self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Forget all faults."""
        with self.lock:
            self.faults.clear()

    def expire_tokens(self) -> None:
        """Take no token that was handed out so far."""
        with self.lock:
            self.tokens.clear()

    def new_token(self) -> str:
        """Make a token that is taken from now on."""
        token = secrets.token_urlsafe(16)
        with self.lock:
            self.tokens.add(token)
        return token

    # What it saw

    def requests(self, method: str = "", on: str = "") -> list[Seen]:
        """The requests so far with this method and this in their path."""
        with self.lock:
            return [s for s in self.seen if method in ("", s.method) and on in s.path]

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The fault due at this request; for the handler."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.on in path and fault.method in ("", method):
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeRegistry
    tls: ssl.SSLContext | None = None

    def __init__(self, address: tuple[str, int], handler: type[Handler]) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        with self.fake.lock:
            self.fake.connections += 1
        if self.tls is not None:
            # The handshake is the handler thread's: a client that is slow at it stops nobody.
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: object) -> None:
        self._open.discard(request)
        super().shutdown_request(request)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up, or did not trust our certificate: what tests are made of."""

    def close_connections(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
