"""The process that answers FUSE: unprivileged, replaceable, started by the supervisor.

Started as root with everything imported (a package below ``/root`` cannot be read later), it
gives its privileges up before it opens an index or a connection.  libfuse is told to use
``/dev/fd/N``, where N is a socket that holds a copy of the kernel's INIT request; as soon as that
is read, the real device takes the place of N, and the kernel is asked to repeat what an
earlier server took and did not answer.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import sys
from functools import partial

import pyfuse3
import trio

from clip_runc import log as logs
from clip_runc.config import Settings
from clip_runc.fs import turns
from clip_runc.fs.adapter import Operations
from clip_runc.fs.catalog import Catalog
from clip_runc.fs.control import Channel, Control
from clip_runc.fs.sources import Sources
from clip_runc.fs.view import View, layer_ino
from clip_runc.linux import fuse_device
from clip_runc.linux.confine import write_nowhere_but
from clip_runc.linux.files import boot_id
from clip_runc.linux.privileges import drop_privileges, set_name
from clip_runc.store import ChunkStore, LayerReader

log = logging.getLogger("clip_runc.fs")

# Each waiting request holds a task (and 1 MiB of untouched address space in libfuse): more than
# the kernel has in the background (fuse_device), so that a stalled registry leaves room.
_TASKS = 512
_FILES = 65536
# Imported by others at their first use, when it may be too late to read the files.
_LAZY = (
    "concurrent.futures.thread", "encodings.idna", "encodings.ascii", "encodings.latin_1",
    "encodings.utf_8_sig", "http.cookiejar", "stringprep", "zstandard", "isal.isal_zlib", "zlib",
    "ssl", "queue", "email.parser", "netrc", "urllib3.contrib.socks", "certifi",
    "charset_normalizer",
)  # fmt: skip
_SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def run(
    settings: Settings, paths: list[str], *, control: int, init: int, device: int, store: int
) -> None:
    """Serve until the filesystem is unmounted.  Arguments but the first two are descriptors."""
    logs.configure(settings.log_level, as_json=settings.log_format == "json")
    kept = (control, init, device, store)
    for fd in kept:
        os.set_inheritable(fd, False)
    _preload()
    drop_privileges(settings.server_uid, keep_fds=kept, files=_FILES)
    write_nowhere_but([store])
    set_name("clipd-server")
    _find_certificates()
    channel = Channel(socket.socket(fileno=control))
    chunks = ChunkStore(
        store,
        threads=settings.fetch_threads,
        read_timeout=settings.read_timeout,
        boot_id=boot_id(),
        limit=settings.store_limit,
    )
    sources = Sources(
        channel.credentials,
        settings.plain_http,
        min(30.0, settings.read_timeout),
        settings.hosts_dirs,
    )
    catalog = Catalog(View(), chunks, sources, settings.prefetch_rate, settings.background_rate)
    operations = Operations(catalog.view, lambda: _take_device(device, init))
    if settings.drop_pages:
        chunks.drop_pages(partial(_say_quiet, channel, catalog, operations))
    turns.enable()
    pyfuse3.init(operations, f"/dev/fd/{init}", set())
    trio.run(_main, channel, catalog)
    sys.stderr.flush()
    # Threads may sit in a read of a registry that never answers; nothing is lost with them.
    os._exit(0)


def _say_quiet(
    channel: Channel, catalog: Catalog, operations: Operations, readers: list[LayerReader]
) -> None:
    """Pages of these layers' files may go: EROFS has its own.  We cannot open the files."""
    read = operations.layers_read
    names = [name for name in catalog.files_of(readers) if layer_ino(name) in read]
    read.difference_update(map(layer_ino, names))
    if names:
        channel.send({"op": "quiet", "layers": names})


def _preload() -> None:
    for name in _LAZY:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    try:
        socket.getaddrinfo("localhost", 80)  # loads the resolver's plug-ins
    except OSError:
        return


def _find_certificates() -> None:
    """Where we can no longer read the bundle of certifi, the system's has to do."""
    import certifi

    if not os.access(certifi.where(), os.R_OK) and os.path.exists(_SYSTEM_CERTIFICATES):
        os.environ.setdefault("REQUESTS_CA_BUNDLE", _SYSTEM_CERTIFICATES)


def _take_device(device: int, init: int) -> None:
    os.dup2(device, init, inheritable=False)
    fuse_device.resend(device)


async def _main(channel: Channel, catalog: Catalog) -> None:
    control = Control(channel, catalog)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(control.run)
        channel.send({"op": "ready"})
        await control.serve.wait()
        channel.send({"op": "serving"})
        await pyfuse3.main(1, _TASKS)
        log.info("the filesystem is unmounted")
        nursery.cancel_scope.cancel()
