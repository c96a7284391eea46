"""Settings: a TOML file, drop-ins, environment; checked, with a default for everything.

``Settings`` is what the rest of the package sees.  The hot path of the shim pays for
TOML only where ``/etc/clip-runc/config.toml`` exists; ``tomllib`` is imported there and
then.  Directories of state are properties of ``Settings``, so that a layout is written
down once.

The comments above each key of ``DEFAULTS`` are its documentation: ``clipctl config explain``
and docs/configuration.md are made of them (``config_files.documentation``).
"""

from __future__ import annotations

import os

from clip_runc.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CONFIG_FILE = "/etc/clip-runc/config.toml"
CONFIG_DIR = "/etc/clip-runc/config.d"
ENVIRONMENT = "CLIP_RUNC_"
LAYER_MODES = ("auto", "erofs", "loop", "tree")
POLICIES = ("build", "pass", "fail")
LAYER_SIZE_LIMIT = 256 << 30

DEFAULTS: dict[str, object] = {
    # the real runtime: a path, or a name looked up in PATH (never ourselves)
    "runtime": "runc",
    # indexes, fetched layers and what containers write; on a disk, never tmpfs or overlay
    "state_dir": "/var/lib/clip",
    # sockets, mounts and leases; empty after a reboot
    "run_dir": "/run/clip",
    # how images are mounted: auto tries erofs, loop, tree in this order
    "layer_mode": "auto",
    # overlay mounts get MS_NOSUID; setuid programs (sudo, ping) need False
    "nosuid": True,
    # what happens at create when an image that an annotation of ours names has no index here:
    # build it, pass the bundle through untouched, or fail
    "explicit_policy": "build",
    # the same for an image that is named by an annotation of the container engine
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
    # where mirrors and certificates of registries are described, HOST/hosts.toml each, as for
    # containerd; a registry is looked for in one after the other
    "hosts_dirs": ("/etc/containerd/certs.d",),
    # a directory of docker config files whose logins are used as well; pull secrets of
    # Kubernetes get there
    "credentials_dir": "/etc/clip-runc/credentials.d",
    # whose indexes are taken when somebody pushed them beside an image: "host[:port]" or
    # "host/repository" prefixes (a host without a port means any port)
    "trusted_registries": ("localhost", "127.0.0.1", "[::1]"),
    # whose indexes are taken anywhere: public keys, as paths or in PEM; cosign's signatures by them
    "trusted_keys": (),
    # an index that nobody vouches for is compared with one that is made here in the background,
    # and used from then on; its containers are not lazy until then
    "compare_untrusted": False,
    # seconds until an index is looked for again beside an image that had none; 0: every time
    "pull_retry": 300,
    # uncompressed bytes of a layer at which indexing stops: gzip makes 1 GB of a TB of zeros
    "layer_size_limit": LAYER_SIZE_LIMIT,
    # bytes of fetched layer data at which layers that no container uses are removed; 0: no limit
    "store_limit": 0,
    # seconds until a read that cannot be served fails with EIO
    "read_timeout": 60,
    # seconds an image stays mounted after its last container is gone
    "image_linger": 300,
    # threads that fetch and inflate
    "fetch_threads": 6,
    # a cold start fetches at once what the index lists for the command (clipctl record)
    "prefetch": True,
    # bytes a second that are fetched by a list; 0: as fast as it goes
    "prefetch_rate": 0,
    # what an image lacks is fetched while a container uses it and no read waits, so that its layers
    # are plain files at their next mount; off: most containers read a few per cent of their image
    "background_fetch": False,
    # bytes a second that are fetched in the background; 0: as fast as it goes
    "background_rate": 16 << 20,
    # the kernel keeps what containers read once and not in the store's cache as well; false: where
    # memory is plenty, and many images share layers
    "drop_pages": True,
    # a new server is asked again what a dead one had taken; false: as Linux before 6.9, which
    # cannot, and ends such requests with an error
    "resend": True,
    # the least that clipd logs
    "log_level": "info",
    # how clipd logs: lines for people (fields of the journal where systemd started it), or a JSON
    # object a line
    "log_format": "text",
}

# Values that a key may have, and limits of numbers; others must not be negative.
CHOICES: dict[str, tuple[str, ...]] = {
    "layer_mode": LAYER_MODES,
    "explicit_policy": POLICIES,
    "implicit_policy": POLICIES,
    "log_level": ("debug", "info", "warning", "error", "critical"),
    "log_format": ("text", "json"),
}
LIMITS = {
    "server_uid": (1, (1 << 32) - 2),
    "read_timeout": (1, 86_400),
    "fetch_threads": (1, 64),
}

ANNOTATION_IMAGE = "dev.clip-runc.image"
ANNOTATION_INDEX = "dev.clip-runc.index"
ANNOTATION_NOSUID = "dev.clip-runc.nosuid"
# what create says of the container; never read from a bundle
ANNOTATION_STATE = "dev.clip-runc.state."


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
    hosts_dirs: tuple[str, ...]
    credentials_dir: str
    trusted_registries: tuple[str, ...]
    trusted_keys: tuple[str, ...]
    compare_untrusted: bool
    pull_retry: int
    layer_size_limit: int
    store_limit: int
    read_timeout: int
    image_linger: int
    fetch_threads: int
    prefetch: bool
    prefetch_rate: int
    background_fetch: bool
    background_rate: int
    drop_pages: bool
    resend: bool
    log_level: str
    log_format: str

    def __init__(self, **values: object) -> None:
        for key, default in DEFAULTS.items():
            setattr(self, key, _checked(key, values.pop(key, default), default))
        if values:
            check(sorted(values)[0], None)

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
    def control_dir(self) -> str:
        """Where clipd's control socket is; 0700."""
        return f"{self.run_dir}/control"

    @property
    def socket(self) -> str:
        """clipd's control socket (0600, in a 0700 directory)."""
        return f"{self.control_dir}/clipd.sock"

    @property
    def events_file(self) -> str:
        """What happened (``clip_runc.events``); ``<this>.1`` is the one before."""
        return f"{self.run_dir}/events"

    @property
    def metrics_socket(self) -> str:
        """Where ``clipctl metrics --serve`` answers HTTP."""
        return f"{self.run_dir}/metrics.sock"

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


_rootless: list[bool] = []


def in_first_user_namespace() -> bool:
    """Is every id here the one that it is for the kernel?  Elsewhere root may mount little."""
    try:
        fd = os.open("/proc/self/uid_map", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return os.read(fd, 200).split() == [b"0", b"0", b"4294967295"]
    finally:
        os.close(fd)


def is_rootless() -> bool:
    """Are we root in a user namespace of their making?  Looked up once."""
    if not _rootless:
        _rootless.append(os.geteuid() == 0 and not in_first_user_namespace())
    return _rootless[0]


def is_personal() -> bool:
    """Do we work for an ordinary user, in their own directories (``personal``)?

    Root of a user namespace does unless ``/`` is its own as well: then it is a whole system's.
    """
    if os.geteuid():
        return True
    return is_rootless() and os.stat("/").st_uid != 0


def check(key: str, value: object) -> object:
    """The value as ``Settings`` has it.  Raises ``ConfigError``."""
    if key not in DEFAULTS:
        raise ConfigError(
            f"unknown setting {key!r}", f"known settings: {', '.join(sorted(DEFAULTS))}"
        )
    return _checked(key, value, DEFAULTS[key])


def _checked(key: str, value: object, default: object) -> object:
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise ConfigError(f"{key} = {value!r}: not a list of strings")
        return tuple(value)
    if type(value) is not type(default):
        raise ConfigError(f"{key} = {value!r}: not a value of type {type(default).__name__}")
    choices = CHOICES.get(key)
    if choices and value not in choices:
        raise ConfigError(f"{key} = {value!r}", f"one of {', '.join(choices)}")
    if type(value) is int:
        least, most = LIMITS.get(key, (0, (1 << 63) - 1))
        if not least <= value <= most:
            raise ConfigError(f"{key} = {value!r}: out of range", f"from {least} to {most}")
    if key in ("state_dir", "run_dir") and not str(value).startswith("/"):
        raise ConfigError(f"{key} = {value!r}: not an absolute path")
    return value


def config_files(path: str | None = None) -> list[str]:
    """The files to read, each after those that it overrides.  Raises ``OSError``.

    ``path``, or else ``$CLIP_RUNC_CONFIG``, stands alone; without either ``CONFIG_FILE``, which
    may be missing, comes before ``CONFIG_DIR/*.toml`` in the order of names, and an ordinary
    user's own file comes last.
    """
    own = os.getuid() == os.geteuid()  # else a set-uid program's caller chose the environment
    named = path or (os.environ.get("CLIP_RUNC_CONFIG") if own else None)
    if named:
        return [named]
    own_files = []
    if is_personal():
        from clip_runc import personal

        if os.path.lexists(personal.config_file()):
            own_files.append(personal.config_file())
    try:
        names = os.listdir(CONFIG_DIR)
    except FileNotFoundError:
        return [CONFIG_FILE, *own_files]
    names = [name for name in names if name.endswith(".toml") and name[0] != "."]
    return [CONFIG_FILE, *(f"{CONFIG_DIR}/{name}" for name in sorted(names)), *own_files]


def combined(files: Iterable[tuple[str, dict[str, object]]]) -> dict[str, object]:
    """The values in force of files that were read: each overrides those before it."""
    values: dict[str, object] = {}
    if is_personal():
        from clip_runc import personal

        values = personal.values()
    for name, found in files:
        values.update({key: value for key, value in found.items() if counts(name, key)})
    return values


def counts(name: str, key: str) -> bool:
    """Has the file ``name`` a say in ``key``?  Not below ``/etc``, of an ordinary user's places."""
    if not (name == CONFIG_FILE or name.startswith(f"{CONFIG_DIR}/")) or not is_personal():
        return True
    from clip_runc import personal

    return key not in personal.OF_ROOT


def from_environment() -> dict[str, object]:
    """Values of ``CLIP_RUNC_<KEY>`` variables: lists have commas, truth is true or false.

    Ignored where a set-uid program called us: its caller chose the environment.
    Raises ``ConfigError``.
    """
    found: dict[str, object] = {}
    for name in os.environ:
        if name.startswith(ENVIRONMENT):
            key = name[len(ENVIRONMENT) :].lower()
            if key in DEFAULTS and os.getuid() == os.geteuid():
                found[key] = _from_text(name, os.environ[name], DEFAULTS[key])
    return found


def _from_text(name: str, text: str, default: object) -> object:
    value: object = text
    if isinstance(default, tuple):
        value = tuple(part.strip() for part in text.split(",") if part.strip())
    elif isinstance(default, bool):
        value = {"true": True, "1": True, "false": False, "0": False}.get(text, text)
    elif isinstance(default, int) and text.isascii() and text.isdigit():
        value = int(text)
    try:
        return _checked(name[len(ENVIRONMENT) :].lower(), value, default)
    except ConfigError as error:
        raise ConfigError(f"environment: {name}: {error.message}", error.hint) from None


def load(path: str | None = None) -> Settings:
    """Read the settings: ``config_files(path)``, then the environment.

    A file that is not there means defaults; one that was named by the environment or by
    ``path`` must exist.  Raises ``ConfigError`` for anything that cannot be used, with the line
    where it stands.
    """
    try:
        files = config_files(path)
    except OSError as error:
        raise ConfigError(f"{CONFIG_DIR}: {error.strerror}") from None
    read: list[tuple[str, dict[str, object]]] = []
    for name in files:
        try:
            with open(name, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            if name != CONFIG_FILE:
                raise ConfigError(f"{name}: no such configuration file") from None
            continue
        except OSError as error:
            raise ConfigError(f"{name}: {error.strerror}") from None
        from clip_runc.config_files import parse

        read.append((name, parse(name, data)))
    return Settings(**{**combined(read), **from_environment()})
