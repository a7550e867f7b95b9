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
from PIL import Image
from results_before import SELECTION, renew
from results_text import describe_surfaces, render_experiment, render_page

from fourfold.combination.baselines import Surfaces
from fourfold.errors import InputError
from fourfold.files.atomic import write_text
from fourfold.files.parquet import read_footer
from fourfold.files.table import read_provenance, read_table
from fourfold.pipeline.params import read_params, resolve
from fourfold.pipeline.targets import TABLES

ROOT = Path(__file__).parent.parent
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
    params = read_params(params_file)
    defined = resolve(params)
    unknown = [name for name in experiments if name not in defined]
    if unknown:
        raise InputError(
            f"no experiment is called {', '.join(unknown)}; {params_file.name} defines "
            f"{', '.join(defined)}."
        )
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=output) as temporary:
        new = {name: Path(temporary) / name for name in dict.fromkeys(experiments)}
        for name, folder in new.items():
            surfaces = describe_surfaces(defined[name])
            copy_experiment(name, results, folder, params["summary"]["kept"], surfaces)
        page = build_page({**published_folders(output), **new}, params)
        for name, folder in new.items():
            _replace_folder(output / name, folder, Path(temporary) / f"old-{name}")
    write_text(output / "README.md", page)


def published_folders(output: Path) -> dict[str, Path]:
    """Return the folders of the published experiments by name."""
    return {path.parent.name: path.parent for path in sorted(output.glob("[!.]*/environment.json"))}


def build_page(folders: Mapping[str, Path], params: Mapping[str, Any]) -> str:
    """Return the text of README.md over the published `folders`, in the order of params.yaml."""
    defined = resolve(params)
    order = [name for name in defined if name in folders]
    order += [name for name in folders if name not in defined]
    published = {}
    for name in order:
        environment = read_environment(folders[name])
        tables = read_tables(replicate_folders(folders[name]), environment["surfaces"])
        published[name] = (tables, environment)
    headline = ROOT / "docs" / "headline" / "summary.parquet"
    shown = pd.read_parquet(headline, columns=["experiment"])["experiment"]
    return render_page(published, params, defined, set(shown))


# --- one experiment -------------------------------------------------------------------------------


def copy_experiment(
    name: str, results: Path, folder: Path, kept: float, surfaces: Surfaces
) -> None:
    """Write tables, figures, tables.md and environment.json of an experiment into a new folder.

    Figures are those of the first replicate alone; `fourfold plot-figures` draws the others from
    their tables.
    """
    replicates = finished_replicates(name, results, surfaces)
    for number, replicate in enumerate(replicates):
        target = folder / f"replicate-{number}" if number else folder
        target.mkdir(parents=True)
        for table in tables_of(surfaces):
            shutil.copyfile(replicate / "tables" / f"{table}.parquet", target / f"{table}.parquet")
    for figure in sorted((replicates[0] / "figures").glob("*.png")):
        (folder / figure.name).write_bytes(compress_figure(figure))
    tables = read_tables(replicate_folders(folder), surfaces)
    environment = collect_environment(name, replicates, tables["cost"], surfaces)
    write_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
    write_text(folder / "tables.md", render_experiment(name, tables, kept, surfaces))


def tables_of(surfaces: Surfaces) -> list[str]:
    """Return the names of all tables of a finished replicate."""
    return [
        *(f"grid-{surface}" for surface in surfaces),
        *(f"selection-{corners}" for corners in chosen_corners(surfaces)),
        *TABLES,
    ]


def chosen_corners(surfaces: Surfaces) -> list[str]:
    """Return the corner sets that were chosen from a run."""
    return list(dict.fromkeys(s["corners"] for s in surfaces.values() if s["kind"] == "run"))


def finished_replicates(name: str, results: Path, surfaces: Surfaces) -> list[Path]:
    """Return an experiment's folders, one for each replicate from 0 on, all of them complete."""
    found = [path for path in (results / name).glob("*") if path.name.isdecimal() and path.is_dir()]
    folders = [results / name / str(number) for number in range(max(len(found), 1))]
    for folder in folders:
        needed = [f"tables/{table}.parquet" for table in tables_of(surfaces)]
        needed.append(f"figures/{SHOWN}")
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


def read_environment(folder: Path) -> dict[str, Any]:
    """Return what made a published experiment."""
    return renew(json.loads((folder / "environment.json").read_text(encoding="utf-8")))


def read_tables(folders: Sequence[Path], surfaces: Surfaces) -> dict[str, pd.DataFrame]:
    """Read all tables of the replicates by name, the grids of all surfaces as `grid`."""
    grids = [f"grid-{surface}.parquet" for surface in surfaces]
    files = {"grid": grids, **{name: [f"{name}.parquet"] for name in TABLES}}
    selections = [f"selection-{corners}" for corners in chosen_corners(surfaces)]
    files |= {name: [f"{name}.parquet"] for name in selections}
    return {
        name: pd.concat(
            [
                _read(name.partition("-")[0], folder / file)
                for folder in folders
                for file in of_name
            ],
            ignore_index=True,
        )
        for name, of_name in files.items()
    }


def _read(name: str, path: Path) -> pd.DataFrame:
    """Read a table; those that were published before may lack the column `corners`."""
    if name == "selection" and not path.exists():
        path = path.with_name(SELECTION)
    if name in ("ensemble", "merge") and "corners" not in read_footer(path)[0].names:
        return pd.read_parquet(path)
    return read_table(name, path)


def collect_environment(
    name: str, replicates: Sequence[Path], cost: pd.DataFrame, surfaces: Surfaces
) -> dict[str, Any]:
    """Return what made an experiment, as its tables say, and what it cost.

    Settings stand where they do in a resolved experiment. Keys in which jobs may differ hold a list
    of all values that occur.

    Raises:
        InputError: if jobs ran with different settings or data, so that not all were rerun after a
            change.
    """
    settings: dict[str, Any] = {}
    data, jobs = [], []
    for path, made_by in _metadata(replicates):
        for place, values in _placed(path, made_by, surfaces):
            known = settings
            for key in place:
                known = known.setdefault(key, {})
            for key, value in values.items():
                if known.setdefault(key, value) != value:
                    raise InputError(
                        f"{path} is of {'.'.join((*place, key))} = {value}, other tables of {name} "
                        f"of {known[key]}; run `snakemake --cores N --config 'run=[{name}]'` to "
                        "its end, and remove the file if it is older than that."
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
        "surfaces": surfaces,
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
                made_by = read_provenance(path)
                if made_by.keys() >= {"settings", "data_sha256"}:
                    yield path, made_by


def _placed(
    path: Path, made_by: Mapping[str, Any], surfaces: Surfaces
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield a job's settings and where they stand in an experiment, `fit` and `corners` by name.

    Their names follow from the job's item, a surface or a corner set: its row of `cost` has it.
    """
    named = {
        "fit": {name: ("fits", surface["fit"]) for name, surface in surfaces.items()},
        "corners": {name: ("corners", name) for name in chosen_corners(surfaces)},
    }
    items = read_table("cost", path)["item"].tolist() if made_by["table"] == "cost" else []
    for section, values in made_by["settings"].items():
        if section not in named:
            yield (section,), values
        elif len(items) == 1 and items[0] in named[section]:
            yield named[section][items[0]], values


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
