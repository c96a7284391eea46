"""One file of bytecode with what the shim imports, for ``runtime/preload.py`` to load.

Lies where bytecode lies (``clip_runc/__pycache__/snapshot.<interpreter>``), is written when
that is compiled, and is good for as long as the sources are those that it was made of.  The code
is that of the sources without what nothing reads when they run: docstrings, annotations, and
with these the import of ``__future__``.
"""

from __future__ import annotations

import ast
import marshal
import os
import sys

from clip_runc.runtime.preload import source_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType

    from clip_runc.runtime.preload import Group, Member

_CREATE = (
    "clip_runc.runtime.lifecycle",
    "clip_runc.runtime.create",
    "clip_runc.runtime.hook",
    "clip_runc.runtime.plain_config",
    "clip_runc.containers.bundle",
    "clip_runc.containers.key",
    "clip_runc.containers.prepare",
    "clip_runc.fs.watches",
    "clip_runc.images.command",
    "clip_runc.images.resolve",
    "clip_runc.linux.mount",
)
_DELETE = (
    "clip_runc.runtime.lifecycle",
    "clip_runc.runtime.delete",
    "clip_runc.runtime.plain_config",
    "clip_runc.containers.key",
    "clip_runc.containers.teardown",
    "clip_runc.linux.mount",
)
_POSTSTOP = (
    "clip_runc.runtime.poststop",
    "clip_runc.runtime.hook",
    "clip_runc.containers.teardown",
    "clip_runc.linux.mount",
)
# what each imports, at once or later; what those import at once is found
ENTRIES = {
    "main": ("clip_runc.runtime.main",),
    "create": _CREATE,
    "run": _CREATE,
    "restore": _CREATE,
    "delete": _DELETE,
    "poststop": _POSTSTOP,
}
_PRELOAD = "clip_runc.runtime.preload"


def path_of(base: str) -> str:
    """Where the snapshot of the package in the directory ``base`` is."""
    return f"{base}/clip_runc/__pycache__/snapshot.{sys.implementation.cache_tag}"


def write(base: str) -> bool:
    """Have a snapshot of the package in ``base`` that is not out of date; False where none can be.

    One that is there and good stays.
    """
    from clip_runc.linux.files import write_atomic

    path = path_of(base)
    expected = _plan(base)
    try:
        if _members_at(path) == expected:
            return True
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        write_atomic(path, build(base), 0o644)
    except OSError:
        return False
    return True


def build(base: str) -> bytes:
    """The bytes of a snapshot: its head, which is code, then the code of each group."""
    groups: list[tuple[str, Group]] = []
    pieces: list[bytes] = []
    made: dict[tuple[Member, ...], tuple[int, int]] = {}
    end = 0
    for name, members in _plan(base):
        if members not in made:
            codes = tuple(lean_code(source_of(base, *member[:2])) for member in members)
            pieces.append(marshal.dumps(codes))
            made[members] = (end, len(pieces[-1]))
            end += len(pieces[-1])
        groups.append((name, (*made[members], members)))
    # the head's own length is in what it says; numbers of another length move it once or twice
    length = 0
    while True:
        shifted = tuple((name, (at + length, size, who)) for name, (at, size, who) in groups)
        head = marshal.dumps(_head(base, shifted))
        if len(head) == length:
            return head + b"".join(pieces)
        length = len(head)


def _head(base: str, groups: tuple[tuple[str, Group], ...]) -> CodeType:
    tree = lean_tree(source_of(base, _PRELOAD, False))
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "GROUPS":
            table = ast.Constant(groups)  # type: ignore[arg-type]  # compile() takes tuples
            statement.value = ast.copy_location(table, statement.value)
    return compile(tree, source_of(base, _PRELOAD, False), "exec", dont_inherit=True)


def _members_at(path: str) -> list[tuple[str, tuple[Member, ...]]]:
    """What a snapshot says that it has; empty where there is none, or one that is damaged."""
    try:
        with open(path, "rb") as file:
            code = marshal.loads(file.read())
        found: dict[str, tuple[tuple[str, Group], ...]] = {}
        exec(code, found)
        return [(name, members) for name, (_, _, members) in found["GROUPS"]]
    except (OSError, EOFError, ValueError, TypeError, KeyError):
        return []


def _plan(base: str) -> list[tuple[str, tuple[Member, ...]]]:
    """Which modules a group has, each after those that it imports."""
    imported: dict[str, list[str]] = {}

    def collect(name: str, into: list[str]) -> None:
        if name in into:
            return
        if name not in imported:
            imported[name] = list(_imports(base, name))
        for other in imported[name]:
            collect(other, into)
        if name not in into:
            into.append(name)

    plan = []
    for group, entries in ENTRIES.items():
        names: list[str] = []
        for entry in entries:
            collect(entry, names)
        plan.append((group, tuple(_member(base, name) for name in names)))
    return plan


def _member(base: str, name: str) -> Member:
    package = _is_package(base, name)
    status = os.stat(source_of(base, name, package))
    return name, package, status.st_size, status.st_mtime_ns


def _is_package(base: str, name: str) -> bool:
    return os.path.isdir(f"{base}/{name.replace('.', '/')}")


def _imports(base: str, name: str) -> Iterator[str]:
    """The modules of ours that a module needs before it is executed: parents, and its imports."""
    parent = name.rpartition(".")[0]
    if parent:
        yield parent
    with open(source_of(base, name, _is_package(base, name)), "rb") as file:
        tree = ast.parse(file.read())
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            candidates = [f"{statement.module}.{alias.name}" for alias in statement.names]
            yield from _modules(base, [statement.module, *candidates])
        elif isinstance(statement, ast.Import):
            yield from _modules(base, [alias.name for alias in statement.names])


def _modules(base: str, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        ours = name == "clip_runc" or name.startswith("clip_runc.")
        if ours and os.path.exists(source_of(base, name, _is_package(base, name))):
            yield name


def lean_code(path: str) -> CodeType:
    """The code of a source without docstrings and annotations."""
    return compile(lean_tree(path), path, "exec", dont_inherit=True)


def lean_tree(path: str) -> ast.Module:
    """What ``lean_code`` compiles."""
    with open(path, "rb") as file:
        tree = ast.parse(file.read(), path)
    lean: ast.Module = ast.fix_missing_locations(_Lean().visit(tree))
    return lean


class _Lean(ast.NodeTransformer):
    """Takes out what is there for readers and type checkers."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        node.body = [one for one in _without_docstring(node.body) if not _is_future(one)]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        node.body = _without_docstring(node.body)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.body = _without_docstring(node.body)
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_If(self, node: ast.If) -> ast.stmt:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.copy_location(ast.Pass(), node)
        self.generic_visit(node)
        return node


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return body[1:] or [ast.copy_location(ast.Pass(), first)]
    return body


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
