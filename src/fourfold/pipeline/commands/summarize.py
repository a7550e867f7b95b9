"""Write the headline table over all experiments and replicates, its text, metrics and figure."""

import argparse
import json
from pathlib import Path
from typing import Any

from fourfold.files.atomic import atomic_path, write_text
from fourfold.files.table import SCHEMAS, common_metadata, read_metadata, read_table, write_table
from fourfold.pipeline.commands._settings import (
    add_kept_argument,
    add_paths,
    add_surfaces_of_each,
    read_surfaces_of_each,
    take_arguments_from_files,
)
from fourfold.report import figures as plot
from fourfold.report.summary import render_markdown, render_metrics, summarize

_TABLES = (
    *("grid", "barrier", "certificate", "ensemble", "merge", "geometry", "cost", "difference"),
    *("rival", "rival_difference"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    take_arguments_from_files(parser)
    read = {name.replace("_", "-"): f"{name} tables to read" for name in _TABLES}
    add_paths(parser, nargs="+", **read)
    add_surfaces_of_each(parser)
    add_kept_argument(parser)
    add_paths(parser, output="folder of the results")


def run(arguments: argparse.Namespace) -> None:
    """Write summary.parquet, .csv and .md, metrics.json, and the summary figure."""
    surfaces = read_surfaces_of_each(arguments.surfaces)
    tables = {name: read_table(name, *getattr(arguments, name)) for name in _TABLES}
    summary = summarize(tables, surfaces)[SCHEMAS["summary"].names]
    folder = arguments.output
    made_by = {"kept": arguments.kept, "surfaces": surfaces, "experiments": _made_by(arguments)}
    write_table("summary", summary, folder / "summary.parquet", made_by)
    with atomic_path(folder / "summary.csv") as path:
        summary.to_csv(path, index=False, float_format="%.6g")
    write_text(folder / "summary.md", render_markdown(summary, arguments.kept, surfaces))
    metrics = json.dumps(render_metrics(summary), indent=2, sort_keys=True)
    write_text(folder / "metrics.json", metrics + "\n")
    names = dict.fromkeys(name for described in surfaces.values() for name in described)
    plot.save_figure(plot.plot_summary(summary, names), folder / "figures" / "summary")


def _made_by(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return of each experiment what its tables agree in."""
    tables: dict[str, list[Path]] = {}
    for path in (path for name in _TABLES for path in getattr(arguments, name)):
        tables.setdefault(read_metadata(path).get("experiment", "unknown"), []).append(path)
    return {name: common_metadata(*paths) for name, paths in tables.items()}
