"""``GET /metrics`` on a unix socket, and on a port of the loopback interface where asked for."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from clip_runc.errors import ConfigError
from clip_runc.telemetry.collect import Collector
from clip_runc.telemetry.exposition import CONTENT_TYPE

_SECONDS = 10.0


class _Handler(BaseHTTPRequestHandler):
    """One scrape."""

    server: _Server
    timeout = _SECONDS
    server_version = "clip-runc"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "only /metrics is here")
            return
        body = self.server.page()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a client"

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not worth a line."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, collector: Collector, lock: threading.Lock, sock: socket.socket) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = sock
        self._collector = collector
        self._lock = lock

    def page(self) -> bytes:
        """The metrics; one scrape at a time."""
        with self._lock:
            return self._collector.text().encode()

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, _ = self.socket.accept()
        return sock, ("", 0)


def unix_listener(path: str) -> socket.socket:
    """Listen at ``path`` (0600); a socket that is there is replaced.  Raises ``OSError``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    temporary = f"{path}.new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    before = os.umask(0o177)
    try:
        sock.bind(temporary)
    finally:
        os.umask(before)
    sock.listen()
    os.rename(temporary, path)
    return sock


def port_listener(address: str) -> socket.socket:
    """Listen at ``host:port`` of the loopback interface.  Raises ``ConfigError``, ``OSError``."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
        number = int(port)
    except ValueError:
        hint = "an address and a port: 127.0.0.1:9464, [::1]:9464"
        raise ConfigError(f"{address!r} is no address to listen at", hint) from None
    if not loopback:
        hint = "put a proxy with TLS and authentication before 127.0.0.1"
        raise ConfigError(f"{address} is not on the loopback interface", hint)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, number), family=family)


def serve(collector: Collector, listeners: list[socket.socket]) -> None:
    """Answer at all of them until the process is ended."""
    lock = threading.Lock()
    servers = [_Server(collector, lock, one) for one in listeners]
    threads = [threading.Thread(target=one.serve_forever, daemon=True) for one in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
