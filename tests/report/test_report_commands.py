"""The commands that report: they take any list of surfaces, described as JSON."""

import json

import pandas as pd
import pytest
from report.test_figures import READ, TABLES, grid_table, table
from report.test_summary import SURFACES, make_tables

from fourfold.files.table import read_metadata, read_table, write_table
from fourfold.pipeline.cli import main
from fourfold.report import figures as plot


@pytest.fixture
def summarize(tmp_path):
    """Write tables and return a function that runs the command on them."""
    given = []
    for name, frame in make_tables().items():
        write_table(name, frame, tmp_path / f"{name}.parquet", {"experiment": "e"})
        given += [f"--{name.replace('_', '-')}", str(tmp_path / f"{name}.parquet")]
    output = tmp_path / "results"
    made = ["--kept", "0.9", "--output", str(output)]

    def run(surfaces, file=None):
        arguments = [*given, "--surfaces", surfaces]
        if file is not None:  # as the workflow does
            file.write_text("\n".join(arguments))
            arguments = [f"@{file}"]
        return main(["summarize", *arguments, *made])

    return run


def test_summarize_writes_table_text_metrics_and_figure(summarize, tmp_path):
    surfaces = {"e": SURFACES, "not-run": SURFACES}
    assert summarize(json.dumps(surfaces)) == 0
    results = tmp_path / "results"
    assert set(read_table("summary", results / "summary.parquet")["experiment"]) == {"e"}
    assert read_metadata(results / "summary.parquet")["surfaces"] == surfaces
    assert "| four corners " in (results / "summary.md").read_text(encoding="utf-8")
    names = {path.name for path in results.rglob("*.*")}
    assert names == {
        *("summary.parquet", "summary.csv", "summary.md", "metrics.json"),
        *("summary.png", "summary.svg"),
    }


def test_arguments_from_a_file_make_the_same_summary(summarize, tmp_path):
    tables = []
    for file in (None, tmp_path / "arguments"):
        assert summarize(json.dumps({"e": SURFACES}), file) == 0
        tables.append(read_table("summary", tmp_path / "results" / "summary.parquet"))
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize(
    ("surfaces", "said"),
    [
        ("linear", "--surfaces"),
        ('{"e": ["linear"]}', "--surfaces, e,"),
        (
            '{"e": {"linear": {"corners": "independent"}}}',
            "lacks ['count', 'fit', 'kind', 'shape']",
        ),
        ('{"f": {}}', "--surfaces, f,"),
        (json.dumps({"e": {"linear": SURFACES["linear"]}}), "the grids of e"),
    ],
)
def test_summarize_refuses_surfaces_that_it_can_not_tell_apart(summarize, surfaces, said, capsys):
    assert summarize(surfaces) == 1
    assert said in capsys.readouterr().err


def test_plot_figures_draws_every_figure_with_the_surfaces_in_their_order(
    tmp_path, monkeypatch, capsys
):
    row = {"seed": 3, "epoch": 1, "split": "test", "n": 9, "nll": 1.0, "accuracy": 0.5}
    row |= {"ece": 0.1, "brier": 0.1, "checkpoint": "endpoints/seed3", "sha256": "0"}
    tables = {name: make() for name, make in TABLES.items()} | {
        "endpoints": table("endpoints", [row])
    }
    for name, frame in tables.items():
        write_table(name, frame, tmp_path / f"{name}.parquet")
    for surface, rows in grid_table(3).groupby("surface"):
        write_table("grid", rows, tmp_path / f"grid-{surface}.parquet")
    drawn = {}
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: drawn.update({path.name: figure}))
    surfaces = dict(reversed(SURFACES.items()))
    folder = str(tmp_path)
    arguments = ["--tables", folder, "--surfaces", json.dumps(surfaces), "--output", folder]
    assert main(["plot-figures", *arguments]) == 0
    assert drawn.keys() == READ.keys() - {"summary"}
    assert "corner seeds 3" in drawn["merges"].get_suptitle()
    titles = [axes.get_title() for axes in drawn["surfaces_3d"].axes[: len(surfaces)]]
    assert titles == list(surfaces)
    drawn.clear()
    assert main(["plot-figures", *arguments, "--figures", "careful", "merges"]) == 0
    assert drawn.keys() == {"careful", "merges"}
    assert main(["plot-figures", *arguments, "--figures", "carefull"]) == 1
    drawn.clear()
    (further := tmp_path / "1").mkdir()
    for path in tmp_path.glob("*.parquet"):
        frame = pd.read_parquet(path).assign(replicate=1)
        write_table(path.stem.partition("-")[0], frame, further / path.name)
    arguments[1:2] = [folder, str(further)]
    assert main(["plot-figures", *arguments]) == 0
    assert drawn.keys() == {"barriers", "convergence"}
    assert "replicates 0, 1" in drawn["barriers"].get_suptitle()
    capsys.readouterr()
    assert main(["plot-figures", *arguments, "--figures", "merges"]) == 1
    assert "figures of these tables are barriers, convergence;" in capsys.readouterr().err
    arguments[2] = folder
    assert main(["plot-figures", *arguments]) == 1
    assert "replicate 0 twice" in capsys.readouterr().err
