"""Settings: one TOML file, checked, with a default for everything.

``Settings`` is what the rest of the package sees.  The hot path of the shim pays for
TOML only where ``/etc/clip-runc/config.toml`` exists; ``tomllib`` is imported there and
then.  Directories of state are properties of ``Settings``, so that a layout is written
down once.
"""

from __future__ import annotations

import os

from clip_runc.errors import ConfigError

CONFIG_FILE = "/etc/clip-runc/config.toml"
LAYER_MODES = ("auto", "erofs", "loop", "tree")
POLICIES = ("build", "pass", "fail")

DEFAULTS: dict[str, object] = {
    # the real runtime: a path, or a name looked up in PATH (never ourselves)
    "runtime": "runc",
    "state_dir": "/var/lib/clip",
    "run_dir": "/run/clip",
    # how images are mounted: auto tries erofs, loop, tree in this order
    "layer_mode": "auto",
    # overlay mounts get MS_NOSUID; setuid programs (sudo, ping) need False
    "nosuid": True,
    # what happens at create when an image that is named has no index here:
    # build it, pass the bundle through untouched, or fail
    "explicit_policy": "build",
    "implicit_policy": "pass",
    # annotations that name an image, first match wins; ours come before all
    "image_annotations": (
        "io.kubernetes.cri.image-name",
        "io.kubernetes.cri-o.ImageName",
        "io.podman.annotations.image-name",
        "org.opencontainers.image.ref.name",
    ),
    # numeric uid and gid of the processes that touch what comes from a registry;
    # from the range that systemd keeps for dynamic users, so no passwd entry has it
    "server_uid": 61217,
    # registries that speak plain HTTP besides localhost
    "plain_http": (),
    # whose indexes are taken when somebody pushed them beside an image: "host[:port]" or
    # "host/repository" prefixes (a host without a port means any port)
    "trusted_registries": ("localhost", "127.0.0.1", "[::1]"),
    # seconds until a read that cannot be served fails with EIO
    "read_timeout": 60,
    # seconds an image stays mounted after its last container is gone
    "image_linger": 300,
    # threads that fetch and inflate
    "fetch_threads": 6,
    "log_level": "info",
    "log_format": "text",
}

ANNOTATION_IMAGE = "dev.clip-runc.image"
ANNOTATION_INDEX = "dev.clip-runc.index"
ANNOTATION_NOSUID = "dev.clip-runc.nosuid"


class Settings:
    """The settings in force: an attribute for each key of ``DEFAULTS``."""

    runtime: str
    state_dir: str
    run_dir: str
    layer_mode: str
    nosuid: bool
    explicit_policy: str
    implicit_policy: str
    image_annotations: tuple[str, ...]
    server_uid: int
    plain_http: tuple[str, ...]
    trusted_registries: tuple[str, ...]
    read_timeout: int
    image_linger: int
    fetch_threads: int
    log_level: str
    log_format: str

    def __init__(self, **values: object) -> None:
        for key, default in DEFAULTS.items():
            setattr(self, key, _checked(key, values.pop(key, default), default))
        if values:
            raise ConfigError(
                f"unknown setting {sorted(values)[0]!r}",
                f"known settings: {', '.join(sorted(DEFAULTS))}",
            )

    # The layout of the state directories, written down once.

    @property
    def index_dir(self) -> str:
        """Indexes by manifest digest: ``<hex>.clip`` and the EROFS image ``<hex>.erofs``."""
        return f"{self.state_dir}/indexes"

    @property
    def reference_dir(self) -> str:
        """What a reference was when it was indexed: ``<sha256 of the reference>.json``."""
        return f"{self.state_dir}/references"

    @property
    def layer_index_dir(self) -> str:
        """Cached results of indexing one layer, by layer digest."""
        return f"{self.state_dir}/layer-indexes"

    @property
    def store_dir(self) -> str:
        """Uncompressed layer data by diff_id; belongs to ``server_uid``."""
        return f"{self.state_dir}/store"

    @property
    def container_dir(self) -> str:
        """Per container: ``<key>/{upper,work,state.json}``."""
        return f"{self.state_dir}/containers"

    @property
    def socket(self) -> str:
        """clipd's control socket (0600, in a 0700 directory)."""
        return f"{self.run_dir}/clipd.sock"

    @property
    def fuse_dir(self) -> str:
        """The one FUSE mount of the host: ``layers/<diff hex>``, ``images/<manifest hex>/``."""
        return f"{self.run_dir}/fs"

    @property
    def image_mount_dir(self) -> str:
        """EROFS mounts by manifest digest, shared by containers."""
        return f"{self.run_dir}/images"

    @property
    def lease_dir(self) -> str:
        """``<manifest hex>/<container key>``: who uses an image mount."""
        return f"{self.run_dir}/leases"

    @property
    def lock_dir(self) -> str:
        """Lock files of containers and images."""
        return f"{self.run_dir}/locks"

    @property
    def rootfs_dir(self) -> str:
        """Per container: ``<key>/rootfs``, the overlay mount that runc is given."""
        return f"{self.run_dir}/containers"


def _checked(key: str, value: object, default: object) -> object:
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise ConfigError(f"{key} = {value!r}: not a list of strings")
        return tuple(value)
    if type(value) is not type(default):
        raise ConfigError(f"{key} = {value!r}: not a value of type {type(default).__name__}")
    choices = {
        "layer_mode": LAYER_MODES,
        "explicit_policy": POLICIES,
        "implicit_policy": POLICIES,
        "log_format": ("text", "json"),
    }.get(key)
    if choices and value not in choices:
        raise ConfigError(f"{key} = {value!r}", f"one of {', '.join(choices)}")
    if key in ("state_dir", "run_dir") and not str(value).startswith("/"):
        raise ConfigError(f"{key} = {value!r}: not an absolute path")
    return value


def load(path: str | None = None) -> Settings:
    """Read the settings: the file at ``path`` (``$CLIP_RUNC_CONFIG``, else ``CONFIG_FILE``).

    A file that is not there means defaults; one that was named by the environment or by
    ``path`` must exist.  Raises ``ConfigError`` for anything that cannot be used.
    """
    named = path or os.environ.get("CLIP_RUNC_CONFIG")
    try:
        with open(named or CONFIG_FILE, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        if named:
            raise ConfigError(f"{named}: no such configuration file") from None
        return Settings()
    except OSError as error:
        raise ConfigError(f"{named or CONFIG_FILE}: {error.strerror}") from None
    import tomllib

    try:
        values = tomllib.loads(data.decode())
        return Settings(**values)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{named or CONFIG_FILE}: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{named or CONFIG_FILE}: {error.message}", error.hint) from None
