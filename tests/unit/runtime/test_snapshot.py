"""Modules from one file: the same as from their sources, and only while those are the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clip_runc.runtime import launcher, snapshot

BASE = launcher.package_directory()
LOADED = """
from_path = [name for name, module in sys.modules.items()
             if name.startswith("clip_runc") and module.__spec__ is not None]
print(len([name for name in sys.modules if name.startswith("clip_runc")]), *from_path)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with its snapshot."""
    base = tmp_path_factory.mktemp("package")
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(BASE, "clip_runc"), base / "clip_runc", ignore=leave)
    assert snapshot.write(str(base))
    return base


def run(base: Path, program: str) -> list[str]:
    """The words that the beginning of a launcher with something else at its end prints."""
    text = launcher.launcher_text(package_dir=str(base), site_dirs=[]).decode()
    script = text[: text.index("from clip_runc")] + program
    command = [launcher.real_interpreter(), "-IS", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("group", snapshot.ENTRIES)
def test_a_group_has_all_that_its_entries_import(package: Path, group: str) -> None:
    """Whatever they import at once is there before it is asked for."""
    entries = "".join(f"import {name}\n" for name in snapshot.ENTRIES[group])
    count, *from_path = run(package, f"load({group!r})\n{entries}{LOADED}")
    assert from_path == []
    assert int(count) >= len(snapshot.ENTRIES[group])


def test_what_is_loaded_is_what_is_imported(package: Path) -> None:
    """Names, classes with their members, functions with their arguments."""
    show = """
def shown(value, depth=0):
    kind = type(value).__name__
    if kind == "function":
        code = value.__code__
        names = code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]
        return f"{names}{[shown(one) for one in value.__defaults__ or ()]}"
    if kind == "type" and depth < 2:
        hidden = ("__doc__", "__dict__", "__weakref__", "__annotations__")
        members = sorted((k, v) for k, v in vars(value).items() if k not in hidden)
        return str([(k, shown(v, depth + 1)) for k, v in members])
    return kind
for name in sorted(sys.modules):
    if name.startswith("clip_runc.") and not name.endswith("preload"):
        for key, value in sorted(vars(sys.modules[name]).items()):
            if not key.startswith("__") and key != "annotations":
                print(f"{name}.{key}={shown(value)}".replace(" ", "_"))
"""
    entries = "".join(f"import {name}\n" for name in snapshot.ENTRIES["create"])
    loaded = run(package, f"load('create')\n{entries}{show}")
    imported = run(package, f"{entries}{show}")
    assert len(loaded) > 300
    assert loaded == imported


def test_a_source_that_changed_is_what_counts(package: Path) -> None:
    source = package / "clip_runc/runtime/hook.py"
    before = source.read_bytes()
    program = "load('create')\nimport clip_runc.runtime.hook as hook\nprint(hook.NAME)"
    try:
        source.write_bytes(before.replace(b'"clip-runc-poststop"', b'"another-poststop!"'))
        assert run(package, program) == ["another-poststop!"]
    finally:
        source.write_bytes(before)
    assert run(package, program) == ["clip-runc-poststop"]


@pytest.mark.parametrize("size", [0, 1, 100, 5000, 100_000, 400_000])
def test_a_damaged_snapshot_is_none(package: Path, size: int) -> None:
    path = Path(snapshot.path_of(str(package)))
    whole = path.read_bytes()
    program = "load('create')\nimport clip_runc.runtime.create\nprint('works')"
    try:
        path.write_bytes(whole[:size])
        assert run(package, program) == ["works"]
        assert snapshot.write(str(package))
        assert snapshot._members_at(str(path)) == snapshot._plan(str(package))
    finally:
        path.write_bytes(whole)


def test_without_a_snapshot(package: Path) -> None:
    path = Path(snapshot.path_of(str(package)))
    away = path.with_suffix(".away")
    path.rename(away)
    try:
        program = "load('create')\nimport clip_runc.runtime.create as c\nprint(c.__spec__.name)"
        assert run(package, program) == ["clip_runc.runtime.create"]
    finally:
        away.rename(path)


def test_it_is_written_once(package: Path) -> None:
    path = Path(snapshot.path_of(str(package)))
    assert snapshot.write(str(package))
    before = path.stat().st_ino
    assert snapshot.write(str(package))
    assert path.stat().st_ino == before
    os.utime(package / "clip_runc/errors.py")
    assert snapshot.write(str(package))
    assert path.stat().st_ino != before
    assert snapshot._members_at(str(path)) == snapshot._plan(str(package))


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(BASE, "clip_runc"), tmp_path / "clip_runc", ignore=leave)
    (tmp_path / "clip_runc/__pycache__").touch()
    assert not snapshot.write(str(tmp_path))


def test_code_keeps_its_lines_and_loses_what_nobody_reads(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        '"""Docstring."""\nfrom __future__ import annotations\nTYPE_CHECKING = False\n'
        "if TYPE_CHECKING:\n    import nothing\nlimit: int = 3\nsize: int\n"
        'class A:\n    """Doc."""\n    x: int = 1\n'
        'def f(a: int, *, b: str = "x") -> str:\n    """Doc."""\n    c: int = a\n'
        "    assert c\n    return b * c\n"
    )
    found: dict[str, object] = {}
    exec(snapshot.lean_code(str(source)), found)
    function, kind = found["f"], found["A"]
    assert callable(function)
    assert function(2, b="y") == "yy"
    assert (function.__doc__, function.__annotations__) == (None, {})
    assert function.__code__.co_firstlineno == 11
    assert (kind.x, kind.__doc__, found["limit"]) == (1, None, 3)  # type: ignore[attr-defined]  # a module made here
    assert not {"annotations", "size", "nothing"} & set(found)
    assert "__annotations__" not in found
    with pytest.raises(AssertionError):
        function(0)
    assert sys.modules.get("nothing") is None
