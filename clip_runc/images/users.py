"""Who a container runs as: the ``User`` of an image config, looked up in the image's own files.

Pure: the contents of ``/etc/passwd`` and ``/etc/group`` come in as bytes.  The forms are those
of the OCI image spec (config.md, "User"): ``user``, ``uid``, ``user:group``, ``uid:gid``,
``uid:group``, ``user:gid``.
"""

from __future__ import annotations

from dataclasses import dataclass

from clip_runc.errors import BundleError

_LARGEST_ID = 2**32 - 2


@dataclass(frozen=True, slots=True)
class User:
    """Numeric ids for ``process.user``, and the home directory for ``HOME``."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


def resolve_user(text: str, passwd: bytes = b"", group: bytes = b"") -> User:
    """Ids of ``text``.  Raises ``BundleError`` for a name that the image does not define.

    As in Docker and containerd: a bare number need not have an entry (its group is then 0), a
    group given after the colon replaces the primary one and leaves out the additional ones.
    """
    wanted, _, wanted_group = text.strip().partition(":")
    account = _account(wanted or "0", passwd)
    if wanted_group:
        return User(account.uid, _group_id(wanted_group, group), (), account.home)
    return User(account.uid, account.gid, _memberships(account, group), account.home)


def _account(wanted: str, passwd: bytes) -> _Account:
    number = _id(wanted)
    for account in _accounts(passwd):
        if account.name == wanted or (number is not None and account.uid == number):
            return account
    if number == 0 or wanted == "root":
        return _Account("root", 0, 0, "/root")
    if number is None:
        raise BundleError(
            f"user {wanted!r} of the image's config is not in its /etc/passwd",
            "give a numeric user, as in --user 1000:1000",
        )
    return _Account("", number, 0, "/")


def _accounts(passwd: bytes) -> list[_Account]:
    found = []
    for fields in _lines(passwd, 7):
        uid, gid = _id(fields[2]), _id(fields[3])
        if uid is not None and gid is not None:
            found.append(_Account(fields[0], uid, gid, fields[5] or "/"))
    return found


def _group_id(wanted: str, group: bytes) -> int:
    number = _id(wanted)
    if number is not None:
        return number
    for fields in _lines(group, 4):
        gid = _id(fields[2])
        if fields[0] == wanted and gid is not None:
            return gid
    raise BundleError(
        f"group {wanted!r} of the image's config is not in its /etc/group",
        "give a numeric group, as in --user 1000:1000",
    )


def _memberships(account: _Account, group: bytes) -> tuple[int, ...]:
    gids = set()
    for fields in _lines(group, 4):
        gid = _id(fields[2])
        if gid is not None and account.name and account.name in fields[3].split(","):
            gids.add(gid)
    return tuple(sorted(gids))


def _lines(data: bytes, fields: int) -> list[list[str]]:
    rows = (line.split(":") for line in data.decode(errors="surrogateescape").splitlines())
    return [row for row in rows if len(row) >= fields]


def _id(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST_ID:
        return int(text)
    return None
