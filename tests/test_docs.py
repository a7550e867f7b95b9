"""The documentation says what the code does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fourfold.files.table import SCHEMAS

DOCS = Path(__file__).parents[1] / "docs"


def test_every_table_and_every_column_is_documented() -> None:
    page = (DOCS / "tables.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert sections.keys() == {"Shared columns", *SCHEMAS, "Tensor files"}
    for name, schema in SCHEMAS.items():
        cells = re.findall(r"^\| (.*?) \|", sections[name], flags=re.MULTILINE)
        documented = set(re.findall(r"`(\w+)`", " ".join(cells))) | {"experiment", "replicate"}
        assert set(schema.names) <= documented, name


def test_the_library_example_runs_and_fitting_raises_the_worst_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    page = (DOCS / "library.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)[:1]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
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
    corners = re.findall(r"^its corners: (\S+), as trained (\S+)$", run.stdout, flags=re.MULTILINE)
    assert len(corners) == len(accuracy)
    assert all(abs(float(again) - float(own)) < 0.01 for again, own in corners)
