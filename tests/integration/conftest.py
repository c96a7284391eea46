"""Fixtures of the tests against real parts: prerequisites, images, daemons, sweeping."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.busybox_images import busybox, plain
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import Containerd, DockerRegistry
from tests.integration.debian_images import debian, debian_variant
from tests.integration.image_maker import Image
from tests.integration.prerequisites import need
from tests.integration.pushing import push

# Not below /tmp, which is a tmpfs on many machines: overlay layers are refused there.
SCRATCH = Path("/var/tmp")
CACHE = Path("/var/cache/clip-runc-tests")


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory of this session on a disk; removed at the end."""
    import shutil
    import tempfile

    need("root")
    path = Path(tempfile.mkdtemp(prefix="clip-it-", dir=SCRATCH))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def registry(scratch: Path) -> Iterator[DockerRegistry]:
    """A real docker-registry on a free port of the loopback interface."""
    need("docker-registry")
    daemon = DockerRegistry(scratch / "registry")
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def busybox_image(scratch: Path) -> Image:
    """A small awkward image: gzip, zstd and uncompressed layers."""
    need("busybox")
    return busybox(scratch / "images")


@pytest.fixture(scope="session")
def busybox_ref(registry: DockerRegistry, busybox_image: Image) -> str:
    """``busybox_image`` in the registry."""
    return push(busybox_image, registry.host, "small/busybox", "latest")


@pytest.fixture(scope="session")
def plain_ref(registry: DockerRegistry, scratch: Path) -> str:
    """An ordinary image of one layer in the registry; also a sandbox image."""
    need("busybox")
    return push(plain(scratch / "images"), registry.host, "small/plain", "latest")


@pytest.fixture(scope="session")
def debian_image() -> Image:
    """A real Debian with Python in three gzip layers, kept between runs."""
    need("root", "debootstrap")
    return debian(CACHE)


@pytest.fixture(scope="session")
def debian_ref(registry: DockerRegistry, debian_image: Image) -> str:
    """``debian_image`` in the registry."""
    return push(debian_image, registry.host, "library/debian", "bookworm")


@pytest.fixture(scope="session")
def debian_mixed_ref(registry: DockerRegistry) -> str:
    """The same Debian with zstd, uncompressed and gzip layers."""
    need("root", "debootstrap")
    image = debian_variant(CACHE, ("zstd", "none", "gzip"))
    return push(image, registry.host, "library/debian", "mixed")


@pytest.fixture(scope="session")
def index_cache(scratch: Path) -> Path:
    """Indexes that tests share, so that an image is indexed once a session."""
    path = scratch / "indexes"
    path.mkdir()
    return path


@pytest.fixture
def clip(scratch: Path, index_cache: Path) -> Iterator[ClipMachine]:
    """clip-runc on a machine of its own: state, settings, launcher, clipd.

    A mount, process or directory of a container that is left when the test is over fails it.
    """
    need("root", "fuse", "overlay", "runc")
    machine = ClipMachine(scratch, index_cache)
    yield machine
    print(machine.clipd_log())  # pytest shows it where the test failed
    left = machine.sweep()
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture
def clip_with(scratch: Path, index_cache: Path) -> Iterator[Callable[..., ClipMachine]]:
    """``clip`` with other settings: call it with them."""
    need("root", "fuse", "overlay", "runc")
    machines: list[ClipMachine] = []

    def make(**settings: object) -> ClipMachine:
        machines.append(ClipMachine(scratch, index_cache, **settings))
        return machines[-1]

    yield make
    for machine in machines:
        print(machine.clipd_log())
    left = [line for machine in machines for line in machine.sweep()]
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture
def containerd(scratch: Path, clip: ClipMachine) -> Iterator[Containerd]:
    """A containerd without CRI whose runtimes see the settings of ``clip``."""
    need("containerd", "runc")
    directory = clip.directory / "containerd"
    daemon = Containerd(directory, environ=clip.environ)
    yield daemon
    daemon.stop()


def pytest_configure(config: pytest.Config) -> None:
    """Tests leave no bytecode of theirs in the work tree of root."""
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
