"""The documentation says what the code does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fourfold.files.table import SCHEMAS

DOCS = Path(__file__).parents[1] / "docs"


def sections(text: str) -> dict[str, str]:
    """Split a page at its second-level headings: title -> text."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_column(section: str) -> set[str]:
    """Return the names in backticks in the first column of a section's tables."""
    cells = re.findall(r"^\| (.*?) \|", section, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_of_a_table_is_documented(name: str) -> None:
    page = sections((DOCS / "tables.md").read_text(encoding="utf-8"))
    shared = first_column(page["Shared columns"]) & {"experiment", "replicate"}
    documented = first_column(page[name]) | shared
    assert [column for column in SCHEMAS[name].names if column not in documented] == []


def test_the_tables_page_has_a_section_for_tables_alone() -> None:
    page = sections((DOCS / "tables.md").read_text(encoding="utf-8"))
    assert set(page) == {"Shared columns", *SCHEMAS, "Tensor files"}


def test_the_library_example_runs_and_fitting_raises_the_worst_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    page = (DOCS / "library.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.group(1)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    pattern = r"^(\w+): test accuracy min (\S+), mean (\S+)$"
    found = re.findall(pattern, run.stdout, flags=re.MULTILINE)
    accuracy = {name: (float(lowest), float(mean)) for name, lowest, mean in found}
    assert accuracy.keys() == {"linear", "bezier"}, run.stdout
    assert accuracy["bezier"] > accuracy["linear"]
    assert all(0 <= lowest <= mean <= 1 for lowest, mean in accuracy.values())
    corners = re.findall(r"^its corners: (\S+), as trained (\S+)$", run.stdout, flags=re.MULTILINE)
    assert len(corners) == len(accuracy)
    assert all(abs(float(again) - float(own)) < 0.01 for again, own in corners)
