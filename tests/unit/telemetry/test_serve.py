"""Who may ask for metrics, and what is answered."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from clip_runc.errors import ConfigError
from clip_runc.telemetry.serve import port_listener, unix_listener


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:1"])
def test_the_loopback_interface_only(address: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        port_listener(address)


@pytest.mark.parametrize("address", ["9464", "localhost:9464", "127.0.0.1:", "127.0.0.1:x", ""])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        port_listener(address)


def test_a_port() -> None:
    with port_listener("127.0.0.1:0") as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_a_socket_takes_the_place_of_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    unix_listener(str(path)).close()
    with unix_listener(str(path)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert not list(tmp_path.glob("*.new"))
