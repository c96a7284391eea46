"""hosts.toml for the whole of clip-runc: client certificates, and mirrors under lazy reads."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip_runc.registry.fake import FakeRegistry
from tests.integration.busybox_images import CONTENT
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry, free_port
from tests.integration.image_maker import MANIFEST, Image
from tests.integration.prerequisites import need
from tests.integration.pushing import push

Machine = Callable[..., ClipMachine]


@pytest.fixture(scope="module")
def etc() -> Iterator[Path]:
    """A directory that everybody can read, as clipd's server must be able to."""
    directory = Path(tempfile.mkdtemp(prefix="clip-etc-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def keys(etc: Path) -> Path:
    """A CA, and certificates of it for the registry (127.0.0.1) and for a client."""
    need("openssl")
    directory = etc / "keys"
    directory.mkdir()
    common = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    common += ["-noenc", "-days", "2"]
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key"]
    for name, more in (
        ("ca", ["-subj", "/CN=test CA"]),
        ("server", [*signed, "-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"]),
        ("client", [*signed, "-subj", "/CN=node", "-addext", "extendedKeyUsage=clientAuth"]),
    ):
        command = [*common, "-keyout", f"{name}.key", "-out", f"{name}.crt", *more]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)
    # clipd's server has no privileges and reads it when it connects
    (directory / "client.key").chmod(0o644)
    return directory


@pytest.fixture
def hosts(etc: Path, tmp_path: Path) -> Path:
    directory = etc / f"hosts-{tmp_path.name}"
    directory.mkdir()
    return directory


def describe(hosts: Path, host: str, text: str) -> None:
    (hosts / host).mkdir(exist_ok=True)
    (hosts / host / "hosts.toml").write_text(text)


@pytest.fixture
def locked(scratch: Path, keys: Path, registry: DockerRegistry) -> Iterator[DockerRegistry]:
    """The storage of ``registry``, behind TLS and for those with a certificate only."""
    http = f"tls: {{certificate: {keys}/server.crt, key: {keys}/server.key"
    http += f", clientcas: [{keys}/ca.crt]}}"
    directory = scratch / f"locked-{keys.name}"
    directory.mkdir()
    (directory / "storage").symlink_to(scratch / "registry/storage")
    daemon = DockerRegistry(directory, http=http)
    yield daemon
    daemon.stop()


def test_a_registry_that_wants_client_certificates(
    clip_with: Machine, locked: DockerRegistry, keys: Path, hosts: Path, busybox_ref: str
) -> None:
    reference = f"{locked.host}/{busybox_ref.partition('/')[2]}"
    server = f'server = "https://{locked.host}"\nca = "{keys}/ca.crt"\n'
    client = f'client = ["{keys}/client.crt", "{keys}/client.key"]\n'
    clip = clip_with(hosts_dirs=[str(hosts)])
    describe(hosts, locked.host, server)
    denied = clip.ctl("index", reference)
    assert (denied.returncode, "certificate" in denied.stderr.lower()) == (1, True), denied.stderr
    describe(hosts, locked.host, server + client)
    bundle = clip.bundle(reference, "/bin/cat", "/srv/data/a")
    done = clip.runc("run", "-b", bundle, "locked")
    assert (done.returncode, done.stdout.encode()) == (0, CONTENT["a"]), done.stderr
    assert clip.status()["fetched"] > 0


def hold(fake: FakeRegistry, image: Image, repository: str) -> None:
    for blob in image.blobs:
        fake.add_blob(blob.path.read_bytes())
    fake.add_manifest(repository, "1", image.manifest, MANIFEST)


@pytest.mark.parametrize("first", ["dead", "slow", "lying"])
def test_lazy_reads_pass_a_bad_mirror_over(
    clip_with: Machine, scratch: Path, hosts: Path, registry: DockerRegistry,
    busybox_image: Image, first: str,
) -> None:  # fmt: skip
    """The origin is gone when the container reads; the second mirror is a real one."""
    repository = f"mirrored/{first}"
    with FakeRegistry() as bad:
        hold(bad, busybox_image, repository)
        url = {"dead": f"http://127.0.0.1:{free_port()}"}.get(first, bad.url)
        origin = DockerRegistry(scratch / f"origin-{first}")
        reference = push(busybox_image, origin.host, repository, "1")
        clip = clip_with(hosts_dirs=[str(hosts)], read_timeout=60)
        bundle = clip.bundle(reference, "/bin/sh", "-c", "cat /srv/data/a /srv/data/big; id -u")
        origin.stop()

        push(busybox_image, registry.host, repository, "1")
        tables = f'[host."{url}"]\n[host."http://{registry.host}"]\n'
        describe(hosts, origin.host, tables)
        if first != "dead":
            fault = {"slow": ("stall", 30), "lying": ("flip", 100)}[first]
            bad.fault(*fault, times=-1, on="/blobs/")
        done = clip.runc("run", "-b", bundle, "mirrored")
        expected = (CONTENT["a"] + CONTENT["big"]).decode() + "1234\n"
        assert (done.returncode, done.stdout) == (0, expected), done.stderr + clip.clipd_log()
        # each thread that fetches may have asked before it was known (30 s, a liar 10 minutes)
        if first == "lying":
            assert 1 <= len(bad.requests("GET", "/blobs/")) <= clip.settings.fetch_threads
        else:
            passed_over = clip.clipd_log().count(f"mirror {url.partition('//')[2]} of")
            assert 1 <= passed_over <= clip.settings.fetch_threads
