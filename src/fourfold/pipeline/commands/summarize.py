"""Write the headline table over all experiments and replicates, its text, metrics and figure."""

import argparse
import json
from pathlib import Path
from typing import Any

from fourfold.files.atomic import atomic_path, write_text
from fourfold.files.table import SCHEMAS, common_metadata, read_metadata, read_table, write_table
from fourfold.pipeline.commands._settings import add_kept_argument, check_kept
from fourfold.report import figures as plot
from fourfold.report.summary import render_markdown, render_metrics, summarize

_TABLES = ("grid", "barrier", "ensemble", "merge", "geometry", "cost", "difference")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    for name in _TABLES:
        parser.add_argument(
            f"--{name}", required=True, nargs="+", type=Path, help=f"{name} tables to read"
        )
    add_kept_argument(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder of the results")


def run(arguments: argparse.Namespace) -> None:
    """Write summary.parquet, .csv and .md, metrics.json, and the summary figure."""
    check_kept(arguments.kept)
    tables = {name: read_table(name, *getattr(arguments, name)) for name in _TABLES}
    summary = summarize(tables)[SCHEMAS["summary"].names]
    folder = arguments.output
    write_table("summary", summary, folder / "summary.parquet", _metadata(arguments))
    with atomic_path(folder / "summary.csv") as path:
        summary.to_csv(path, index=False, float_format="%.6g")
    write_text(folder / "summary.md", render_markdown(summary, arguments.kept))
    metrics = json.dumps(render_metrics(summary), indent=2, sort_keys=True)
    write_text(folder / "metrics.json", metrics + "\n")
    plot.save_figure(plot.plot_summary(summary), folder / "figures" / "summary")


def _metadata(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the share that is kept, and of each experiment what its tables agree in."""
    tables: dict[str, list[Path]] = {}
    for path in (path for name in _TABLES for path in getattr(arguments, name)):
        tables.setdefault(read_metadata(path).get("experiment", "unknown"), []).append(path)
    experiments = {name: common_metadata(*paths) for name, paths in tables.items()}
    return {"kept": arguments.kept, "experiments": experiments}
