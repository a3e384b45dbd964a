"""docs/reliability.md says what is so: every test that it names is there, and every limit is the code's."""

import re

from assistant import limits
from assistant.files import ROOT

TEXT = (ROOT / "docs" / "reliability.md").read_text("utf-8")


def test_every_fault_is_held_by_a_test_that_exists() -> None:
    rows = [
        line for line in TEXT.splitlines() if line.startswith("|") and line.rstrip().endswith("` |") and "test_" in line
    ]
    assert len(rows) >= 40
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for row in rows for name in re.findall(r"`(test_\w+)`", row)}
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []


def test_every_limit_stands_there_as_it_is() -> None:
    told = dict(re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+)", TEXT, re.MULTILINE))
    assert told == {name: str(value) for name, value in vars(limits).items() if name.isupper()}
