import json
from pathlib import Path

from click.testing import CliRunner, Result

from clip_runc.cli import diff
from tests.unit.images.small_clip import SmallImage


def run(monkeypatch, *arguments: object) -> Result:
    # the command gives its privileges up, which a test process needs
    monkeypatch.setattr(diff, "drop_privileges", lambda uid, keep_fds: None)
    return CliRunner().invoke(diff.command, [str(x) for x in arguments], standalone_mode=False)


def test_for_people_and_for_programs(tmp_path: Path, monkeypatch) -> None:
    old = SmallImage({"same": b"x", "gone": b"x", "link": "a", "big": b"1"}).write(
        tmp_path / "a.clip"
    )
    new = SmallImage({"same": b"x", "new\n": b"x", "link": "b", "big": b"22"}).write(
        tmp_path / "b.clip"
    )
    shown = run(monkeypatch, old, new)
    assert shown.return_value == 1
    assert shown.stdout.splitlines() == [
        "M /big  (size 1 → 2, data)",
        "- /gone",
        "M /link  (target a → b)",
        "+ /new\\n",
    ]
    rows = json.loads(run(monkeypatch, "--json", old, new).stdout)
    assert [(row["path"], row["change"]) for row in rows] == [
        ("/big", "changed"),
        ("/gone", "removed"),
        ("/link", "changed"),
        ("/new\n", "added"),
    ]
    assert rows[2]["attributes"] == {"target": {"old": "a", "new": "b"}}


def test_nothing_differs(tmp_path: Path, monkeypatch) -> None:
    path = SmallImage({"same": b"x"}).write(tmp_path / "a.clip")
    shown = run(monkeypatch, path, path)
    assert (shown.return_value, shown.stdout) == (0, "")
    assert json.loads(run(monkeypatch, "--json", path, path).stdout) == []
