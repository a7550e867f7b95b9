"""Copy finished experiments from `results/` into docs/results, and rebuild the pages over them.

    python docs/publish.py EXPERIMENT...   # copy these, then rebuild the pages and findings.md
    python docs/publish.py                 # rebuild them from the copies and params.yaml
    python docs/publish.py --headline      # README.md's tables as well, of the experiments in `run`

A copy is complete or not made: what fails leaves everything as it was.
"""

import argparse
import io
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from findings import GROUPS, Published, group_of, render_findings
from matplotlib.figure import Figure
from overview import (
    accuracy_table,
    cells_of,
    claim_table,
    draw_figures,
    figure_name,
    full_size_table,
    what_they_say,
)
from PIL import Image

from fourfold.combination.alignment import choose_method
from fourfold.combination.baselines import Surfaces
from fourfold.errors import InputError
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.files.atomic import write_text
from fourfold.files.table import GATHERED, read_metadata, read_table, write_table
from fourfold.networks import build_model
from fourfold.pipeline.params import read_params
from fourfold.pipeline.targets import Targets, split_run
from fourfold.report.explorer import Cached, Predictions, pack_predictions
from fourfold.report.figures import plot_convergence, plot_summary, save_figure
from fourfold.report.pairs import main_surface
from fourfold.report.summary import markdown_table, render_headline, rival_blocks, summarize

ROOT = Path(__file__).parent.parent
FIGURE = "surfaces.png"  # of an experiment, on the page
CONVERGENCE = "convergence.png"  # of all replicates, drawn here
NINE = "cpu"  # the scale of the experiments that the pages show first
FULL = "full"  # and that of the paper
FIGURE_OF_NINE = figure_name(NINE)
IN_README = "cifar10-resnet18-cpu"  # whose surfaces README.md shows until all nine have been run
# Predictions on test, of an experiment that the site's explorer shows: main surface, replicate 0.
PREDICTIONS, PREDICTIONS_BYTES = "predictions.json", 500_000
FIGURE_BYTES, COLORS = 150_000, 256
SHRINK = 0.85  # of a figure's sides, until it is small enough
SUMMARY = "summary.parquet"  # of an experiment's replicates, made when all tables were there
# Of an experiment with more surfaces than these a page shows less, and only some tables are copied,
# of all replicates in one file. Others leave out what the summary or a figure has.
MANY = 7
_OF_MANY = ("barrier", "certificate", "cost", "merge", "pick", "rival")
_FIGURES_OF_MANY = ("barriers", "rivals", "careful", "plane")
_LEFT_OUT = ("rival_difference", "plane", "plane_path")  # a thousand draws in a row; a figure
SHOWN = 6  # settings that differ
SELECTION_ROWS = 10  # of the best candidates for the corners from a run, in tables.md

# What shapes the results of an experiment, beside fits and seeds; what its jobs may differ in.
_SETTINGS = ("dataset", "network", "augment", "training", "grid", "ensembles", "corners")
_MADE_BY = ("git", "hardware", "device", "threads", "versions")
_HIDDEN = ["experiment", "replicate", "n", "members", "checkpoint", "sha256", "draws"]


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> None:
    """Copy the named experiments and rewrite the pages below `root`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="finished experiments")
    parser.add_argument("--results", type=Path, default=root / "results", help="where they are")
    parser.add_argument("--headline", action="store_true", help="rewrite README.md's tables too")
    given = parser.parse_args(arguments)
    try:
        publish(root, given.results, given.experiments, given.headline)
    except (InputError, OSError) as error:  # an unreadable figure is an OSError
        raise SystemExit(f"error: {error}") from error


def publish(root: Path, results: Path, experiments: Sequence[str], is_headline: bool) -> None:
    """Copy experiments and rewrite the pages: all of that, or nothing."""
    targets, output, readme = read_targets(root), root / "docs" / "results", root / "README.md"
    if unknown := [name for name in experiments if name not in targets.experiments]:
        raise InputError(
            f"no experiment is called {', '.join(unknown)}; params.yaml defines "
            f"{', '.join(targets.experiments)}."
        )
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=output) as temporary:
        new = {name: Path(temporary) / name for name in dict.fromkeys(experiments)}
        for name, folder in new.items():
            copy_experiment(targets, name, results, folder)
        published = read_published(output, new)
        texts = {output / path: text for path, text in render_pages(published, targets).items()}
        texts[root / "docs" / "findings.md"] = render_findings(published, targets)
        if is_headline:
            block = render_readme_block(published, targets)
            texts[readme] = replace_block(readme.read_text(encoding="utf-8"), "headline", block)
            summary = pd.concat(published[name].summary for name in targets.params["run"])
            surfaces = dict.fromkeys(summary.loc[summary["kind"] == "surface", "method"])
            write_figure(plot_summary(summary, surfaces), Path(temporary) / "summary.png")
        for file, figure in draw_figures(published, targets):
            write_figure(figure, Path(temporary) / file)
        for name, folder in new.items():
            if (output / name).exists():
                (output / name).rename(Path(temporary) / f"old-{name}")
            folder.rename(output / name)
        for path in Path(temporary).glob("*.png"):
            path.replace(output / path.name)
    for path, text in texts.items():
        write_text(path, text)


def read_targets(root: Path) -> Targets:
    """Return what params.yaml defines."""
    return Targets(read_params(root / "params.yaml"))


def replace_block(text: str, name: str, block: str) -> str:
    """Return a page with `block` between the markers of `name`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise InputError(f"the page lacks the markers {begin} and {end}; put them back.")
    return f"{before}{begin}\n{block}\n{end}{after}"


# --- copies ---------------------------------------------------------------------------------------


def read_published(output: Path, new: Mapping[str, Path] = {}) -> dict[str, Published]:
    """Read the published experiments, `new` ones from other folders."""
    there = {path.parent.name: path.parent for path in output.glob("[!.]*/environment.json")}
    return {name: _read(folder) for name, folder in sorted((there | dict(new)).items())}


def _read(folder: Path) -> Published:
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        files.setdefault("grid" if path.stem.startswith("grid-") else path.stem, []).append(path)
    tables = {name: read_table(name.partition("-")[0], *paths) for name, paths in files.items()}
    if (summary := tables.pop(Path(SUMMARY).stem, None)) is None:
        raise InputError(f"{folder} lacks {SUMMARY}: publish {environment['experiment']} anew.")
    figures = sorted(path.name for path in folder.glob("*.png"))
    return Published(environment, tables, summary, figures)


def copy_experiment(targets: Targets, name: str, results: Path, folder: Path) -> None:
    """Write tables, figures, summary, environment.json of an experiment into a new folder.

    Figures are those of the first replicate, but for that of convergence, which is of all;
    `fourfold plot-figures` draws others from the tables.
    """
    count = len([path for path in (results / name).glob("*") if path.name.isdecimal()])
    sources = [results / name / str(number) for number in range(max(count, 1))]
    tables, has_many = targets.tables(name), len(targets.surfaces(name)) > MANY
    figure, jobs = _figure(name, targets.surfaces(name)), []
    surfaces: Any = targets.described(name)
    shown = None if has_many else main_surface(surfaces)
    for number, source in enumerate(sources):
        parts = [f"tables/{table}.parquet" for table in tables if table not in GATHERED]
        parts += [job for part in GATHERED for job in targets.job_parts(name, number, part)]
        gathered = [f"tables/{table}.parquet" for table in GATHERED]
        needed = [*parts, *gathered, *([] if figure == CONVERGENCE else [f"figures/{figure}"])]
        if shown and not number:
            needed.append(f"logits/{shown}.safetensors")
        if missing := [file for file in needed if not (source / file).is_file()]:
            raise InputError(
                f"{source} is not finished: it lacks {', '.join(missing)}; {_run(name)}, "
                "or remove the folder if that replicate is not wanted."
            )
        jobs += [source / part for part in parts]
    environment = collect_environment(targets, name, jobs)
    every: dict[str, list[Path]] = {}
    for number, source in enumerate(sources):
        target = folder / f"replicate-{number}" if number and not has_many else folder
        target.mkdir(parents=True, exist_ok=True)
        for table in tables:
            path = source / "tables" / f"{table}.parquet"
            every.setdefault(table.partition("-")[0], []).append(path)
            if not has_many and table not in _LEFT_OUT:
                shutil.copy(path, target)
    read = {table: read_table(table, *paths) for table, paths in every.items()}
    for table in _OF_MANY if has_many else ():
        write_table(table, read[table], folder / f"{table}.parquet")
    summary = summarize(read, {name: environment["surfaces"]})
    write_table("summary", summary, folder / SUMMARY)
    if shown:
        packed = _predictions(sources[0], read, environment["surfaces"], shown)
        write_text(folder / PREDICTIONS, json.dumps({"surface": shown, **packed._asdict()}) + "\n")
    for path in sorted((sources[0] / "figures").glob("*.png")):
        if not has_many or path.stem in _FIGURES_OF_MANY:
            (folder / path.name).write_bytes(compress_figure(path))
    if targets.has_convergence(name):
        drawn = plot_convergence(read["barrier"], read["cost"], environment["surfaces"])
        write_figure(drawn, folder / CONVERGENCE)
    write_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")


def _predictions(
    source: Path, tables: Mapping[str, pd.DataFrame], surfaces: Surfaces, name: str
) -> Predictions:
    """Return predictions of a surface in replicate 0, whose folder is `source`."""
    first = {table: rows[rows["replicate"] == 0] for table, rows in tables.items()}
    cached = Cached.of(SurfaceLogits.load(source / "logits" / f"{name}.safetensors"))
    return pack_predictions(first, surfaces, name, cached, PREDICTIONS_BYTES)


def _figure(name: str, surfaces: Sequence[str]) -> str:
    """Return the figure of an experiment that pages show."""
    if group := group_of(name):
        return GROUPS[group].figure
    return FIGURE if len(surfaces) <= MANY else "barriers.png"


def _shown_figure(name: str, published: Published, folder: str = "") -> str:
    """Return that figure's Markdown."""
    figure = _figure(name, list(published.environment["surfaces"]))
    what = {FIGURE: "Loss and accuracy over the surfaces of"}
    what |= {of.figure: of.caption for of in GROUPS.values()}
    return f"![{what.get(figure, 'Barriers of')} {name}]({folder}{figure})"


def collect_environment(targets: Targets, name: str, jobs: Sequence[Path]) -> dict[str, Any]:
    """Return what made an experiment: settings, and of each thing that jobs may differ in a list.

    Raises:
        InputError: if a job had other settings, or other data: not all were rerun after a change.
    """
    settings, made_by = settings_of(targets, name), [read_metadata(path) for path in jobs]
    surfaces = settings["surfaces"]
    data = {"data_sha256": made_by[0]["data_sha256"]}
    for path, of in zip(jobs, made_by, strict=True):
        item = path.stem.partition("-")[2]  # a surface or a corner set, where the job has one
        own = {
            "fit": settings["fits"].get(surfaces.get(item, {}).get("fit"), {}),
            **_of_corners(targets, name, of["replicate"], item),
            "grid": settings["grid"],
        }
        if batchnorm := surfaces.get(item.removesuffix("-grid"), {}).get("batchnorm"):
            own["grid"] = settings["grid"] | {"batchnorm": batchnorm}
        # Tables from before the name of the data set was recorded have the hash alone.
        ran = of["settings"] | {key: of[key] for key in ("dataset", "data_sha256") if key in of}
        if changes := _changes(ran, settings | data | own, added=False):
            raise InputError(
                f"{path} was not made as the other tables and params.yaml say: "
                f"{'; '.join(changes)}; {_run(name)}, and remove the file if it is older than that."
            )
    return {
        "experiment": name,
        "replicates": len({of["replicate"] for of in made_by}),
        "surfaces": targets.described(name),
        "settings": settings,
        **data,
        **{key: _distinct(of[key] for of in made_by) for key in _MADE_BY},
    }


def _of_corners(targets: Targets, name: str, replicate: int, item: str) -> dict[str, Any]:
    """Return the settings of a job's corner set, if it has one, and of its training."""
    sets = targets.experiments[name]["corners"]
    names = (item.removesuffix("-corners"), item.rpartition("-")[0])  # a network has a number
    corners: dict[str, Any] = next((sets[corners] for corners in names if corners in sets), {})
    training = corners.get("then") or corners.get("training")
    if item in targets.runs(name, replicate):
        training, _ = split_run(item)
    return {"corners": corners, "training": targets.training(name, training)}


def settings_of(targets: Targets, name: str) -> dict[str, Any]:
    """Return what params.yaml says of an experiment, as far as it shapes results."""
    of, surfaces = targets.experiments[name], targets.experiments[name]["surfaces"]
    fits = {one["fit"]: of["fits"][one["fit"]] for one in surfaces.values() if one["fit"]}
    named = [one.get(key) for one in of["corners"].values() for key in ("training", "then")]
    trainings = {name: of["trainings"][name] for name in named if name is not None}
    rest = {"surfaces": surfaces, "fits": fits, "seeds": targets.params["seeds"]}
    rest |= {"trainings": trainings} if trainings else {}
    return {key: of[key] for key in _SETTINGS} | rest


def _changes(then: Mapping[str, Any], now: Mapping[str, Any], *, added: bool) -> list[str]:
    """Say which settings have changed, dotted; `added`: those too that only `now` has.

    A switch that came later and is off is no change.
    """
    a, b = (dict(_dotted(one)) for one in (then, now))
    return [
        f"`{key}` was {a.get(key, 'absent')}, is {b.get(key, 'absent')}"
        for key in (a | b if added else a)
        if a.get(key, "absent") != b.get(key, "absent") and (key in a or b[key] is not False)
    ]


def _dotted(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Return the different values, hashable or not, as they first occur."""
    return list({json.dumps(value): value for value in values}.values())


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, as small as it gets."""
    save_figure(figure, path.with_suffix(""))
    path.with_suffix(".svg").unlink()
    path.write_bytes(compress_figure(path))


def compress_figure(path: Path) -> bytes:
    """Return a figure as PNG with a palette, made smaller until it has at most FIGURE_BYTES."""
    with Image.open(path) as image:
        opaque = image.convert("RGBA")
    figure = Image.new("RGB", opaque.size, "white")
    figure.paste(opaque, mask=opaque.getchannel("A"))
    scale = 1.0
    while True:
        size = [round(scale * side) for side in figure.size]
        small = figure if scale == 1 else figure.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        # By an octree colours stay within 5 of 255; median cut merges those that are rare.
        palette = small.quantize(COLORS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        palette.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= FIGURE_BYTES:
            return buffer.getvalue()
        scale *= SHRINK


def _run(name: str) -> str:
    return f"run `snakemake --cores N --config 'run=[{name}]'` to its end"


# --- pages ----------------------------------------------------------------------------------------


def render_pages(published: Mapping[str, Published], targets: Targets) -> dict[str, str]:
    """Return path -> text of all pages in docs/results."""
    kept = targets.params["summary"]["kept"]
    pages = {f"{name}/tables.md": _render_tables(name, of, kept) for name, of in published.items()}
    return {"README.md": _render_page(published, targets), **pages}


def _render_tables(name: str, published: Published, kept: float) -> str:
    """Return an experiment's headline, and of its first replicate what a reader wants to see."""
    has_many = len(published.environment["surfaces"]) > MANY
    blocks = [
        f"# {name}",
        f"Written by `python docs/publish.py {name}` from the parquet files beside this page "
        "([what their columns mean](../../reference/tables.md)); [environment.json]"
        "(environment.json) says what made them.",
        _shown_figure(name, published),
        "## Headline",
        _headline({name: published}, kept),
        *rival_blocks({name: published.summary}, {name: published.environment["surfaces"]}),
    ]
    if has_many:
        return "\n\n".join([*blocks, *_further(name, published)]) + "\n"
    blocks.append(
        "The tables below and the figures, but for that of convergence, are of the first "
        "replicate; the tables of others are in `replicate-1` and so on. Differences are positive "
        "in favour of the surface. What is called *oracle* was chosen on test and shows how much "
        "that flatters."
    )
    for table, rows in published.tables.items():
        if table in ("grid", "training"):
            continue
        rows = rows[rows["replicate"] == 0]
        if table == "endpoints":
            rows = rows[rows["checkpoint"].str.startswith("endpoints/")]
        blocks += _rows(table, rows.head(SELECTION_ROWS) if table.startswith("sel") else rows)
    return "\n\n".join(blocks) + "\n"


def _further(name: str, published: Published) -> Iterator[str]:
    """Yield what else a page shows of an experiment with many surfaces."""
    shown = _figure(name, list(published.environment["surfaces"]))
    yield (
        "Figures, but for that of convergence, are of the first replicate; the parquet files have "
        "all of them, "
        f"[{SUMMARY}]({SUMMARY}) what is over all: differences of each two methods, ensembles and "
        "merges too."
    )
    for figure in published.figures:
        if figure != shown:
            yield f"![{Path(figure).stem.capitalize()} of {name}]({figure})"
    yield "What a choice on test flatters (`gap`), and how sure val is of its own, replicate 0:"
    pick = published.tables["pick"]
    yield from _rows("pick", pick[pick["replicate"] == 0])


def _rows(table: str, rows: pd.DataFrame) -> list[str]:
    """Return rows of a table as a section."""
    shown = rows.drop(columns=_HIDDEN, errors="ignore").dropna(axis=1, how="all")
    cells = shown.map(_cell)
    return [f"## {table}", markdown_table(list(cells), cells.to_numpy().tolist())]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _headline(published: Mapping[str, Published], kept: float) -> str:
    surfaces = {name: of.environment["surfaces"] for name, of in published.items()}
    return render_headline(pd.concat(of.summary for of in published.values()), kept, surfaces)


def _render_page(published: Mapping[str, Published], targets: Targets) -> str:
    """Return README.md, its experiments in the order of params.yaml."""
    defined = targets.experiments
    published = {
        name: published[name] for name in dict.fromkeys([*defined, *published]) if name in published
    }
    absent = [name for name in defined if name not in published]
    main = {name: of for name, of in published.items() if group_of(name) is None}
    nine = {name: of for name, of in main.items() if name in cells_of(targets, NINE)}
    full = {name: of for name, of in main.items() if name in cells_of(targets, FULL)}
    others = {name: of for name, of in main.items() if name not in {**nine, **full}}
    blocks = [
        "# Reference results",
        "Finished experiments, copied from `results/`: their tables, figures, and what made them. "
        f"`params.yaml` defines {len(defined)} experiments; {len(published)} are here, and below "
        "is a list of those that are not. [What they say](../findings.md), question by question.",
        "## The paper's nine experiments, small enough for two cores",
        *_nine(published, targets),
        *([claim_table(nine)] if nine else []),
        "In each cell the verdict, and of the comparisons (splits, metrics) the one least in "
        "favour of the surface: accuracy in points, nll in nats, positive in its favour. A surface "
        "is low-loss if its worst point keeps at least "
        f"{100 * targets.params['summary']['kept']:g} % of what the corners have above guessing; "
        "*trivial* where these are near in weights or predictions. Each experiment's page has its "
        "other surfaces and the controls.",
        *(["## Others", accuracy_table(others, others), claim_table(others)] if others else []),
        "## At full size",
        *([accuracy_table(full, full), claim_table(full)] if full else []),
        "The paper's experiments as they are meant for a GPU. What is expected is the corners' "
        "mean accuracy on test: our guess from what others state of like networks, which is no "
        "measurement of ours, and of the original images: those here were "
        "[JPEG copies](../how-to/own-data.md#jpeg-copies). What one costs: "
        "[scaling.md](../scaling.md#the-experiments-of-"
        "paramsyaml), [benchmarks.md](../benchmarks.md#at-full-size).",
        full_size_table(published, targets),
        "## Where they were measured",
        _origin_table(published, defined),
    ]
    titles = {None: "Published experiments"} | {key: of.title for key, of in GROUPS.items()}
    for group, title in titles.items():
        if alike := {name: of for name, of in published.items() if group_of(name) == group}:
            blocks += [f"## {title}", _pages_table(alike, targets)]
    blocks += [
        "## Not run",
        f"`params.yaml` defines {len(absent)} experiments of which this repository has no result; "
        f"they have not been run: {', '.join(absent)}.",
        "## Rebuilding this page",
        "No number here is typed by hand: `python docs/publish.py` makes this page of the tables "
        "here and of `params.yaml`, and with the name of an experiment that `snakemake --cores 2 "
        "--config 'run=[EXPERIMENT]' replicates=1` has finished, copies that here first.",
    ]
    return "\n\n".join(blocks) + "\n"


def _nine(published: Mapping[str, Published], targets: Targets) -> Iterator[str]:
    """Yield the figure of the nine experiments on two cores, their table, and how to read it."""
    names = cells_of(targets, NINE)
    if count := sum(name in published for name in names):
        yield _figure_of_nine(count, len(names))
    yield accuracy_table(published, names)
    yield _table_note(targets.params["summary"]["kept"])


def _table_note(kept: float) -> str:
    return (
        "Accuracy on test in percent, over the whole surface: its worst point, on the grid, along "
        "the edges or at random; its mean, and its center. Low-loss: the worst point keeps at "
        f"least {100 * kept:g} % of what the corners have above guessing, in accuracy and nll, on "
        "that split; the claim asks for it on train, val and test. Best point, four points: picked "
        "on val; beside them what they have more than the best corner on val and than the four "
        "corners, in points, and whether that is more (yes), less (no) or can't be told: the 95 % "
        "interval, of a paired bootstrap over images, has zero inside."
    )


def _figure_of_nine(count: int, of: int, folder: str = "") -> str:
    return f"![Accuracy over the surfaces of {count} of {of} experiments]({folder}{FIGURE_OF_NINE})"


def _pages_table(published: Mapping[str, Published], targets: Targets) -> str:
    """One row for each experiment: where its tables and its figure are, and its settings."""
    body = [
        [
            f"[{name}]({name}/tables.md)",
            _shown_figure(name, of, f"{name}/").removeprefix("!"),
            f"[environment]({name}/environment.json)",
            _settings_note(of.environment["settings"], targets, name),
        ]
        for name, of in published.items()
    ]
    return markdown_table(["tables", "figure", "made by", "settings"], body)


def _origin_table(published: Mapping[str, Published], defined: Mapping[str, Any]) -> str:
    """One row for each experiment: how good its corners should be and are, and what made it."""
    head = ["experiment", "corners' accuracy (%)", "expected (%)", "device", "processor", "commit"]
    head += ["torch", "jobs", "time of all jobs (h)"]
    body = []
    for name, of in published.items():
        made_by, summary, cost = of.environment, of.summary, of.tables["cost"]
        expected = defined.get(name, {}).get("expected_accuracy")
        # Of the first surface, whose corners the expectation is about.
        corners = summary.loc[summary["metric"] == "accuracy_corner_mean_own", "mean"].iloc[0]
        lists = [
            cost["device"].tolist(),
            [machine["processor"] for machine in made_by["hardware"]],
            [
                f"{git['commit']}"[:10] + " *with changes*" * bool(git["dirty"])
                for git in made_by["git"]
            ],
            [versions["torch"] for versions in made_by["versions"]],
        ]
        cells = [name, f"{100 * corners:.2f}", f"{100 * expected:g}" if expected else ""]
        cells += [", ".join(_distinct(values)) for values in lists]
        body.append([*cells, str(len(cost)), f"{cost['wall_s'].sum() / 3600:.2f}"])
    return markdown_table(head, body) + (
        "\n\nAccuracies on test, of the corners as trained; those above are of aligned ones where "
        "a surface has them, which compute the same up to rounding. Time: sum over jobs, which may "
        "have run side by side. A commit *with changes* had files that differed from it."
    )


def _where(of: Published) -> str:
    """Return on which devices an experiment was run, and with what."""
    made_by, devices = of.environment, of.tables["cost"]["device"]
    versions = made_by["versions"][0]
    return (
        f"on {' and '.join(dict.fromkeys(devices))} with Python {versions['python']} and torch "
        f"{versions['torch']}, threads per job: {made_by['threads'][0]}"
    )


def _settings_note(then: Mapping[str, Any], targets: Targets, name: str) -> str:
    """Say whether an experiment was run with the settings that params.yaml has for it now."""
    if name not in targets.experiments:
        return "**Differs from params.yaml**, which no longer defines this experiment."
    if changes := _changes(then, _with_methods(then, settings_of(targets, name)), added=True):
        more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        return f"**Differs from params.yaml**: {'; '.join(changes[:SHOWN])}{more}."
    return "as `params.yaml` has them"


def _with_methods(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return `now` with the method instead of `auto`, where a run named the one that `auto` is."""

    def method(corners: str, of: Mapping[str, Any]) -> dict[str, Any]:
        named = then["corners"].get(corners, {}).get("method", "auto")
        same = of.get("method") == "auto" != named == _chosen_method(now["network"])
        return {**of, "method": named} if same else dict(of)

    return {**now, "corners": {name: method(name, of) for name, of in now["corners"].items()}}


def _chosen_method(network: Mapping[str, Any]) -> str:
    """Return the method that `auto` is for a network, whatever images it is for."""
    model = build_model(**network, channels=3, image_size=32, classes=10)
    return choose_method(model, torch.zeros(2, 3, 32, 32))


def render_readme_block(published: Mapping[str, Published], targets: Targets) -> str:
    """Return README.md's text about the nine experiments at both sizes, and those in `run`."""
    names = [*targets.params["run"], IN_README]
    if absent := [name for name in names if name not in published]:
        raise InputError(f"README.md shows {absent[0]}, which is not published; name it as well.")
    nine = cells_of(targets, NINE)
    there = [name for name in nine if name in published]
    full = [name for name in cells_of(targets, FULL) if name in published]
    shown = [*full, *there, *names[:-1]]
    blocks = [
        _figure_of_nine(len(there), len(nine), "docs/results/")
        if there == nine
        else f"![Surfaces of {IN_README}](docs/results/{IN_README}/{FIGURE})",
        what_they_say(published, shown),
        accuracy_table(published, shown),
        _table_note(targets.params["summary"]["kept"]),
        f"Measured {_where(published[IN_README])}"
        + "".join(f"; {name} {_where(published[name])}" for name in full)
        + ". CIFAR's images were [JPEG copies](docs/how-to/own-data.md#jpeg-copies). "
        "Written by `python docs/publish.py --headline` from "
        "[docs/results](docs/results/README.md).",
    ]
    if rest := [name for name in nine if name not in there]:
        blocks.insert(4, f"Not run yet: {', '.join(rest)}.")
    return "\n\n".join(blocks)


if __name__ == "__main__":
    main()
