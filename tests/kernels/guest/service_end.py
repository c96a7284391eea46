"""clipd as a service of systemd: it goes in good order, makes room, and leaves nothing."""

from __future__ import annotations

from tests.kernels.guest.commands import run, wait_for
from tests.kernels.guest.installed import (
    RUNTIME,
    VENV,
    cgroup,
    index,
    install,
    left,
    registry,
    status,
    units,
    write_bundle,
)
from tests.kernels.guest.reading import reader
from tests.kernels.guest.service import first_container, is_active, serves, show, went_well


def stopped() -> str:
    """``systemctl stop`` unmounts; the socket stays, and the next container starts clipd again."""
    run(RUNTIME, "delete", "--force", "served")
    run("systemctl", "stop", "clipd.service")
    assert show("ActiveState") == "inactive"
    assert show("NFileDescriptorStore") == "0"
    assert is_active("clipd.socket")
    assert not left(), left()
    first_container()
    return "nothing left, and started again"


def taken_over() -> str:
    """A clipd that a client started, where there was no socket, makes room for the unit."""
    run(RUNTIME, "delete", "--force", "served")
    run("systemctl", "stop", "clipd.socket")
    assert show("ActiveState") == "inactive", "the socket's end is the service's"
    write_bundle("/root/before", "sleep", "100000")
    run(RUNTIME, "run", "--detach", "--bundle", "/root/before", "before")
    found = status()
    assert found["holder"] == "keeper"
    assert cgroup(found["supervisor"]["pid"]) == "/clip-runc"
    with reader() as reading:
        wait_for(lambda: reading.rounds or reading.errors, "a read ends")
        run("systemctl", "start", "clipd.socket")
        serves()
        text = went_well(reading, "taken over")
    run(RUNTIME, "delete", "--force", "before")
    return text


def uninstalled() -> str:
    """Not under a container's feet; then nothing is left."""
    first_container()
    said = run(f"{VENV}/bin/clipctl", "uninstall")
    assert "clipd stays" in said, said
    with reader() as reading:
        went_well(reading, "it stays")
    run("runc", "delete", "--force", "served", check=False)  # its poststop hook is gone
    run(f"{VENV}/bin/clipctl", "gc")
    run(f"{VENV}/bin/clipctl", "uninstall")
    wait_for(lambda: not left(), "the end of everything", seconds=20)
    for what in ("list-unit-files", "list-units"):
        names = ("clipd*", "clip-runc*")
        said = run("systemctl", what, "--all", "--plain", "--no-legend", *names, check=False)
        assert not said.strip(), said
    return "nothing left"


CHECKS = (
    install, registry, index, units, first_container, stopped, taken_over, uninstalled,
)  # fmt: skip
