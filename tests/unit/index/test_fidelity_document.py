"""Each decision in ``docs/design/fidelity.md`` names a test, and the test is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs/design/fidelity.md").read_text()
TESTS = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "| ---" not in line]


def test_every_test_it_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 30
    assert not {name for name in named if f"def {name}(" not in TESTS}


def test_every_file_it_names_is_there() -> None:
    files = {path.name for path in (ROOT / "tests").rglob("*.py")}
    named = set(re.findall(r"`(?:[a-z_]+/)*(\w+\.py)`", TEXT))
    assert named and not named - files


def test_every_decision_has_a_test() -> None:
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        shown = cells[2] in ("Shown by", "not compared") or "`" in cells[2]
        assert shown, row
