"""Modules out of one file, without the search for theirs: the head of a snapshot.

A snapshot (``runtime/snapshot.py`` writes it) begins with this module, compiled, and a table in
place of ``GROUPS``; the launcher executes that and calls ``load``.  A warm create needs forty
modules, and finding, opening and checking the bytecode of each cost more than executing it.

Whatever is odd about the file, or newer than it, is left to the import system.
"""

from __future__ import annotations

import gc
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType

    # name, is it a package, size and modification time (ns) of its source
    Member = tuple[str, bool, int, int]
    # where its code is, from the end of the file's head on, how long that is, and whose
    Group = tuple[int, int, tuple[Member, ...]]

# by command of the shim, and "main" and "poststop"
GROUPS: tuple[tuple[str, Group], ...] = ()


def load(group: str, fd: int, base: str) -> None:
    """Have the modules of ``group`` in ``sys.modules``, as far as they are not.

    ``fd`` is the snapshot, ``base`` the directory of the package.  Nothing is loaded where one
    of the sources is not the one that was compiled.
    """
    for name, (at, length, members) in GROUPS:
        if name != group or not all(_is_current(base, member) for member in members):
            continue
        gc.disable()
        try:
            for member, code in zip(members, _read(fd, at, length), strict=False):
                if member[0] not in sys.modules:
                    _execute(base, member, code)
        finally:
            gc.freeze()  # modules stay; or the next object made would have all of them looked at
            gc.enable()


def _read(fd: int, at: int, length: int) -> Sequence[CodeType]:
    """The code of a group; of a damaged one nothing."""
    try:
        codes: Sequence[CodeType] = marshal.loads(posix.pread(fd, length, at))
    except (OSError, EOFError, ValueError, TypeError):
        return ()
    return codes


def source_of(base: str, name: str, package: bool) -> str:
    """The file of a module."""
    return f"{base}/{name.replace('.', '/')}{'/__init__' if package else ''}.py"


def _is_current(base: str, member: Member) -> bool:
    name, package, size, changed = member
    try:
        status = posix.stat(source_of(base, name, package))
    except OSError:
        return False
    return status.st_size == size and status.st_mtime_ns == changed


def _execute(base: str, member: Member, code: CodeType) -> None:
    """As an import would, but for ``__spec__``, which nothing here asks for."""
    name, package = member[:2]
    module = type(sys)(name)
    parent, _, tail = name.rpartition(".")
    module.__file__ = source_of(base, name, package)
    module.__package__ = name if package else parent
    if package:
        module.__path__ = [module.__file__.removesuffix("/__init__.py")]
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)  # as trustworthy as bytecode: root's own
    except BaseException:
        del sys.modules[name]
        raise
    if parent:
        setattr(sys.modules[parent], tail, module)
