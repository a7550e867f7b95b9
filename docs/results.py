"""Copy finished experiments from `results/` into docs/results, and rebuild the page over them.

    python docs/results.py EXPERIMENT...   # copy these, then rebuild docs/results/README.md
    python docs/results.py                 # rebuild it from the copies and params.yaml

A copy is complete or not made: an experiment that is unfinished leaves everything as it was.
"""

import argparse
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from PIL import Image
from results_text import render_experiment, render_page

from fourfold.errors import InputError
from fourfold.files.atomic import write_text
from fourfold.files.table import read_metadata, read_table

ROOT = Path(__file__).parent.parent
GRIDS = ("grid-linear", "grid-bezier", "grid-trajectory")
# Every table of a finished replicate, as in workflow/rules/common.smk.
TABLES = (
    *GRIDS,
    *("barrier", "ensemble", "merge", "geometry", "difference", "selection"),
    *("endpoints", "training", "cost"),
)
SHOWN = "surfaces.png"  # the figure on the page
FIGURE_BYTES = 150_000
COLORS = 256
SHRINK = 0.85  # of a figure's sides, until it is small enough


def main(arguments: Sequence[str] | None = None) -> None:
    """Copy the named experiments and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="finished experiments")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="where they are")
    parser.add_argument("--params", type=Path, default=ROOT / "params.yaml", help="params.yaml")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results", help="copies")
    given = parser.parse_args(arguments)
    try:
        update(given.experiments, given.results, given.params, given.output)
    except (InputError, OSError) as error:  # an unreadable figure is an OSError
        raise SystemExit(f"error: {error}") from error


def update(experiments: Sequence[str], results: Path, params_file: Path, output: Path) -> None:
    """Copy experiments into `output` and rewrite its README.md: all of that, or nothing.

    Raises:
        InputError: if an experiment isn't in params.yaml, or its results are not complete.
    """
    params = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    unknown = [name for name in experiments if name not in params["experiments"]]
    if unknown:
        raise InputError(
            f"no experiment is called {', '.join(unknown)}; {params_file.name} defines "
            f"{', '.join(params['experiments'])}."
        )
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=output) as temporary:
        new = {name: Path(temporary) / name for name in dict.fromkeys(experiments)}
        for name, folder in new.items():
            copy_experiment(name, results, folder, params["summary"]["kept"])
        page = build_page({**published_folders(output), **new}, params)
        for name, folder in new.items():
            _replace_folder(output / name, folder, Path(temporary) / f"old-{name}")
    write_text(output / "README.md", page)


def published_folders(output: Path) -> dict[str, Path]:
    """Return the folders of the published experiments by name."""
    return {path.parent.name: path.parent for path in sorted(output.glob("[!.]*/environment.json"))}


def build_page(folders: Mapping[str, Path], params: Mapping[str, Any]) -> str:
    """Return the text of README.md over the published `folders`, in the order of params.yaml."""
    order = [name for name in params["experiments"] if name in folders]
    order += [name for name in folders if name not in params["experiments"]]
    published = {}
    for name in order:
        environment = (folders[name] / "environment.json").read_text(encoding="utf-8")
        published[name] = (read_tables(replicate_folders(folders[name])), json.loads(environment))
    headline = ROOT / "docs" / "headline" / "summary.parquet"
    shown = pd.read_parquet(headline, columns=["experiment"])["experiment"]
    return render_page(published, params, set(shown))


# --- one experiment -------------------------------------------------------------------------------


def copy_experiment(name: str, results: Path, folder: Path, kept: float) -> None:
    """Write tables, figures, tables.md and environment.json of an experiment into a new folder.

    Figures are those of the first replicate alone; `fourfold plot-figures` draws the others from
    their tables.
    """
    replicates = finished_replicates(name, results)
    for number, replicate in enumerate(replicates):
        target = folder / f"replicate-{number}" if number else folder
        target.mkdir(parents=True)
        for table in TABLES:
            shutil.copyfile(replicate / "tables" / f"{table}.parquet", target / f"{table}.parquet")
    for figure in sorted((replicates[0] / "figures").glob("*.png")):
        (folder / figure.name).write_bytes(compress_figure(figure))
    tables = read_tables(replicate_folders(folder))
    environment = json.dumps(collect_environment(name, replicates, tables["cost"]), indent=2)
    write_text(folder / "environment.json", environment + "\n")
    write_text(folder / "tables.md", render_experiment(name, tables, kept))


def finished_replicates(name: str, results: Path) -> list[Path]:
    """Return an experiment's folders, one for each replicate from 0 on, all of them complete."""
    found = [path for path in (results / name).glob("*") if path.name.isdecimal() and path.is_dir()]
    folders = [results / name / str(number) for number in range(max(len(found), 1))]
    for folder in folders:
        needed = [*(f"tables/{table}.parquet" for table in TABLES), f"figures/{SHOWN}"]
        missing = [file for file in needed if not (folder / file).is_file()]
        if missing:
            raise InputError(
                f"{folder} is not finished: it lacks {', '.join(missing)}; "
                f"run `snakemake --cores N --config 'run=[{name}]'` to its end, "
                "or remove the folder if that replicate is not wanted."
            )
    return folders


def replicate_folders(folder: Path) -> list[Path]:
    """Return the folders with the tables of a published experiment: itself, replicate-1, ..."""
    more = len(list(folder.glob("replicate-*")))
    return [folder, *(folder / f"replicate-{number}" for number in range(1, more + 1))]


def read_tables(folders: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Read all tables of the replicates by name, the grids of all surfaces as `grid`."""
    names = [name for name in TABLES if name not in GRIDS]
    tables = {
        name: read_table(name, *(folder / f"{name}.parquet" for folder in folders))
        for name in names
    }
    grids = [folder / f"{grid}.parquet" for folder in folders for grid in GRIDS]
    return {"grid": read_table("grid", *grids), **tables}


def collect_environment(
    name: str, replicates: Sequence[Path], cost: pd.DataFrame
) -> dict[str, Any]:
    """Return what made an experiment, as its tables say, and what it cost.

    Keys in which jobs may differ hold a list of all values that occur.

    Raises:
        InputError: if jobs ran with different settings or data, so that not all were rerun after a
            change.
    """
    settings: dict[str, dict[str, Any]] = {}
    data, jobs = [], []
    for path, made_by in _metadata(replicates):
        for section, values in made_by["settings"].items():
            known = settings.setdefault(section, {})
            for key, value in values.items():
                if known.setdefault(key, value) != value:
                    raise InputError(
                        f"{path} is of {section}.{key} = {value}, other tables of {name} of "
                        f"{known[key]}; run `snakemake --cores N --config 'run=[{name}]'` to its "
                        "end, and remove the file if it is older than that."
                    )
        data.append(made_by["data_sha256"])
        jobs.append(made_by)
    if len(set(data)) != 1:
        raise InputError(
            f"the tables of {name} are of {len(set(data))} versions of its data; they must be of "
            f"one: run `snakemake --cores N --config 'run=[{name}]'` to its end."
        )
    by_stage = cost.groupby("stage", sort=False)["wall_s"]
    return {
        "experiment": name,
        "replicates": len(replicates),
        "settings": settings,
        "data_sha256": data[0],
        **{
            key: _distinct(made_by[key] for made_by in jobs if key in made_by)
            for key in ("git", "hardware", "device", "threads", "versions")
        },
        "cost": {
            "jobs": len(cost),
            "devices": _distinct(cost["device"]),
            "wall_s": round(float(cost["wall_s"].sum()), 1),
            "wall_s_per_stage": {stage: round(float(s), 1) for stage, s in by_stage.sum().items()},
            "images_forward": int(cost["images_forward"].sum()),
            "images_backward": int(cost["images_backward"].sum()),
            "flop": float(cost["flop"].sum()),
            "peak_bytes": int(cost["peak_bytes"].max()),
        },
    }


def _metadata(replicates: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield tables and what their jobs wrote into them."""
    for replicate in replicates:
        for folder in ("tables", "jobs"):
            for path in sorted((replicate / folder).rglob("*.parquet")):
                made_by = read_metadata(path)
                if made_by.keys() >= {"settings", "data_sha256"}:
                    yield path, made_by


def _distinct(values: Any) -> list[Any]:
    """Return the different values in the order in which they first occur."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def compress_figure(path: Path) -> bytes:
    """Return a figure as PNG with a palette, made smaller until it has at most FIGURE_BYTES."""
    with Image.open(path) as image:
        figure = Image.new("RGB", image.size, "white")
        opaque = image.convert("RGBA")
        figure.paste(opaque, mask=opaque.getchannel("A"))
    scale = 1.0
    while True:
        size = [max(1, round(scale * side)) for side in figure.size]
        small = figure if scale == 1 else figure.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.quantize(COLORS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= FIGURE_BYTES or max(size) == 1:
            return buffer.getvalue()
        scale *= SHRINK


def _replace_folder(target: Path, new: Path, old: Path) -> None:
    """Put `new` in the place of `target`, which moves to `old`, or back if that fails."""
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


if __name__ == "__main__":
    main()
