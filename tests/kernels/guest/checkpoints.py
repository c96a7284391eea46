"""A container checkpointed and restored by the real runc and criu, as Beta9 calls them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kernels.guest.commands import run, wait_for
from tests.kernels.guest.installed import (
    BIG,
    RUNTIME,
    index,
    install,
    left,
    registry,
    write_bundle,
)
from tests.kernels.guest.reading import expected

BUNDLE = "/root/counting"
IMAGE = "/root/checkpoint"
# It has no file of its own open between two steps; where it writes is a mount of the container.
COUNT = """\
n=0
while sleep 0.2; do
    n=$((n+1)); echo $n > /dev/shm/n.new; mv /dev/shm/n.new /dev/shm/n
done
"""


def inside(*command: str) -> str:
    """In the container."""
    return run(RUNTIME, "exec", "counting", *command)


def counted() -> int:
    """How far it has come."""
    return int(inside("cat", "/dev/shm/n"))


def checkpoint() -> str:
    """A process that counts is written to a disk, and is gone with its container."""
    write_bundle(BUNDLE, "sh", "-c", COUNT)
    # criu cannot dump a file of the host's that is open inside, as run's output is
    run("sh", "-ec", f"{RUNTIME} run --detach --bundle {BUNDLE} counting > /dev/null 2>&1")
    wait_for(lambda: counted() > 10, "it counts")
    before = counted()
    try:
        run(RUNTIME, "checkpoint", "--image-path", IMAGE, "--work-path", IMAGE, "counting")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{tail('dump.log')}") from None
    Path(BUNDLE, "before").write_text(str(before))
    assert "does not exist" in state_error()
    return run("criu", "--version").split()[1]


def tail(name: str) -> str:
    """The end of a log of criu's."""
    path = Path(IMAGE, name)
    return path.read_text(errors="replace")[-1500:] if path.exists() else "no log of criu"


def state_error() -> str:
    """What runc says where there is no container."""
    return run("sh", "-c", f"{RUNTIME} state counting 2>&1 || true")


def restore() -> str:
    """From the same bundle: it goes on counting where it was, over an image mounted anew."""
    try:
        run(
            RUNTIME, "restore", "--detach", "--image-path", IMAGE, "--work-path", IMAGE,
            "--bundle", BUNDLE, "counting",
        )  # fmt: skip
    except AssertionError as error:
        raise AssertionError(f"{error}\n{tail('restore.log')}") from None
    before = int(Path(BUNDLE, "before").read_text())
    now = counted()
    assert now >= before, (before, now)
    wait_for(lambda: counted() > now, "it goes on")
    assert inside("sha256sum", f"/{BIG}").split()[0] == expected("team/lazy")[BIG]
    assert json.loads(run(RUNTIME, "state", "counting"))["status"] == "running"
    run(RUNTIME, "delete", "--force", "counting")
    run("clipctl", "gc")
    assert not [one for one in left() if "containers" in one]
    return f"at {before} before, {now} after"


CHECKS = (install, registry, index, checkpoint, restore)
