"""Who talks to clipd, and what they are told."""

from __future__ import annotations

import socket
from pathlib import Path

from clip_runc.errors import ConfigError
from clip_runc.fs import protocol
from clip_runc.fs.clients import listen, refuse_waiting


def test_one_that_waits_with_its_request_is_told_why(tmp_path: Path) -> None:
    """The answer is read after the other side has hung up."""
    with listen(str(tmp_path / "socket")) as listener:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with client:
            client.connect(str(tmp_path / "socket"))
            protocol.send(client, {"op": "status"})
            refuse_waiting(listener, ConfigError("nobody serves", "do this"))
            received = protocol.receive(client)
    assert received is not None
    assert "nobody serves" in str(received[0]) and "do this" in str(received[0])
