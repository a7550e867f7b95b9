"""The Markdown of docs/results: one page over all published experiments, one for each of them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from results_before import STAGES

from fourfold.combination.baselines import Surfaces, reference_surfaces
from fourfold.report.summary import markdown_table, render_headline, summarize
from fourfold.surfaces.points import (
    CENTER,
    area_mean,
    is_corner,
    lattice_rows,
    own_corner_rows,
    surface_rows,
)

SELECTION_ROWS = 10  # best candidates for the corners from a run that tables.md shows

# What summarize() reads.
_SUMMARIZED = ("grid", "barrier", "ensemble", "merge", "geometry", "cost", "difference")
_UNITS = {
    **dict.fromkeys(("accuracy", "disagreement"), ("%", lambda x: f"{100 * x:.2f}")),
    **dict.fromkeys(("nll", "ece", "brier", "cosine"), ("", lambda x: f"{x:.4f}")),
    "wall_s": ("s", lambda x: f"{x:.1f}"),
    "images_forward": ("k", lambda x: f"{x / 1e3:.1f}"),
    "images_backward": ("k", lambda x: f"{x / 1e3:.1f}"),
    "flop": ("TFLOP", lambda x: f"{x / 1e12:.3g}"),
    "peak_bytes": ("MiB", lambda x: f"{x / 2**20:.0f}"),
}
_PLAIN = ("", lambda x: f"{x:.4g}" if isinstance(x, float) else str(x))

_NAMED = {"fits", "corners"}  # sections of an experiment with names of the user's

Tables = Mapping[str, pd.DataFrame]


# --- one experiment -------------------------------------------------------------------------------


def render_experiment(name: str, tables: Tables, kept: float, surfaces: Surfaces) -> str:
    """Return tables.md of an experiment: what a reader wants of each of its tables.

    Args:
        name: of the experiment.
        tables: by name, all replicates under each other, the grids of all surfaces in `grid`.
        kept: `summary.kept` of params.yaml.
        surfaces: of the experiment.
    """
    first = {table: rows[rows["replicate"] == 0] for table, rows in tables.items()}
    replicates = tables["grid"]["replicate"].nunique()
    final = first["endpoints"]["checkpoint"].str.startswith("endpoints/")
    sections = {
        "Surfaces": _grid_rows(first["grid"]),
        "Corners as trained (own), and with re-estimated BatchNorm statistics": _corner_rows(
            first["grid"], surfaces
        ),
        "Worst points and barriers, in nats (nll) or as a fraction (error)": first["barrier"],
        "Differences, in nats (nll) or as a fraction (accuracy)": first["difference"].drop(
            columns="draws"
        ),
        "Ensembles": first["ensemble"].drop(columns=["members", "n"]),
        "Merges": first["merge"].drop(columns="n"),
        "Distances of control points": first["geometry"],
        **_selections(first),
        "Endpoints, with the BatchNorm statistics of training": first["endpoints"][final].drop(
            columns=["checkpoint", "sha256"]
        ),
        "Cost": first["cost"],
    }
    blocks = [
        f"# {name}",
        f"Written by `python docs/results.py {name}`. The tables themselves are the parquet files "
        "beside this page ([what their columns mean](../../tables.md)); "
        "[environment.json](environment.json) says what made them.",
        f"![{_figure_text(name, surfaces)}](surfaces.png)",
        "## Headline",
        render_headline(summarize_tables(name, tables, surfaces), kept, {name: surfaces}),
    ]
    if replicates > 1:
        blocks.append(
            f"The tables below and the figures are of the first of {replicates} replicates; those "
            "of the others lie in `replicate-1`, `replicate-2` and so on."
        )
    for title, frame in sections.items():
        blocks += [f"## {title}", _render_frame(frame)]
    blocks.append(
        "Differences are positive in favour of the surface. What is called *oracle* was chosen on "
        "test and shows how much that flatters."
    )
    return "\n\n".join(blocks) + "\n"


def describe_surfaces(experiment: Mapping[str, Any]) -> Surfaces:
    """Return the surfaces of a resolved experiment, with the kind of their corners."""
    kinds = {name: corners["kind"] for name, corners in experiment["corners"].items()}
    return {
        name: {**surface, "kind": kinds[surface["corners"]]}
        for name, surface in experiment["surfaces"].items()
    }


def summarize_tables(name: str, tables: Tables, surfaces: Surfaces) -> pd.DataFrame:
    """Return the `summary` table of one experiment."""
    summarized = {table: tables[table] for table in _SUMMARIZED}
    summarized["cost"] = tables["cost"].replace({"stage": STAGES})
    return summarize(summarized, {name: surfaces})


def _figure_text(name: str, surfaces: Surfaces) -> str:
    counts = {1: "one surface", 2: "two surfaces", 3: "three surfaces"}
    count = counts.get(len(surfaces), f"{len(surfaces)} surfaces")
    return f"Loss and accuracy over {count}, {name}"


def _selections(tables: Tables) -> dict[str, pd.DataFrame]:
    """Return title -> the best candidates for each set of corners that was chosen from a run."""
    titles: dict[str, pd.DataFrame] = {}
    for table, candidates in tables.items():
        kind, _, corners = table.partition("-")
        if kind == "selection":
            which = f"Trajectory surface, corners {corners}" if titles else "Trajectory surface"
            titles[f"{which}: the best {SELECTION_ROWS} candidates at most"] = candidates[
                candidates["candidate"] <= SELECTION_ROWS
            ].drop(columns="n")
    return titles


def _grid_rows(grid: pd.DataFrame) -> pd.DataFrame:
    """One row for each surface and split: accuracy and nll over all points, and at the center.

    Smallest and largest are of all points that were evaluated on the whole split; the mean is over
    the area.
    """
    keys = ["experiment", "replicate", "surface", "split"]
    rows = []
    for key, of_split in grid.groupby(keys, sort=False):
        points, lattice = surface_rows(of_split), lattice_rows(of_split)
        center = lattice.set_index(["u", "v"]).loc[CENTER]
        row = dict(zip(keys, key, strict=True)) | {"points": len(points), "n": int(center["n"])}
        for metric in ("accuracy", "nll"):
            row[f"{metric}_min"] = points[metric].min()
            row[f"{metric}_mean"] = area_mean(lattice["u"], lattice["v"], lattice[metric])
            row[f"{metric}_center"], row[f"{metric}_max"] = center[metric], points[metric].max()
        rows.append(row)
    return pd.DataFrame(rows)


def _corner_rows(grid: pd.DataFrame, surfaces: Surfaces) -> pd.DataFrame:
    """One row for each corner and split: as trained, and by the procedure of all other points.

    Surfaces with the same corners have them once.
    """
    keys = ["experiment", "replicate", "surface", "split", "u", "v"]
    shown = grid["surface"].isin(reference_surfaces(surfaces).values())
    grid = grid[shown & is_corner(grid["u"], grid["v"])]
    own, again = own_corner_rows(grid).set_index(keys), lattice_rows(grid).set_index(keys)
    rows = own[[]].copy()
    for metric in ("accuracy", "nll"):
        rows[f"{metric}_own"], rows[f"{metric}_reestimated"] = own[metric], again[metric]
    return rows.reset_index()


def _render_frame(frame: pd.DataFrame) -> str:
    """Return a table in Markdown, the values in a reader's units; what every row says is left out.

    Those are the experiment, and the replicate where there is one only.
    """
    is_single = len(set(frame["replicate"])) == 1
    hidden = ["experiment", "replicate"] if is_single else ["experiment"]
    frame = frame.drop(columns=hidden)
    head, columns = [], []
    for column in frame:
        unit, show = _UNITS.get(column, _UNITS.get(column.partition("_")[0], _PLAIN))
        head.append(f"{column} ({unit})" if unit else column)
        columns.append(["" if pd.isna(value) else show(value) for value in frame[column].tolist()])
    return markdown_table(head, [list(row) for row in zip(*columns, strict=True)])


# --- all experiments ------------------------------------------------------------------------------


def render_page(
    published: Mapping[str, tuple[Tables, Mapping[str, Any]]],
    params: Mapping[str, Any],
    defined: Mapping[str, Any],
    in_headline: set[str],
) -> str:
    """Return docs/results/README.md.

    Args:
        published: tables and environment of each published experiment, by name.
        params: all of params.yaml.
        defined: its experiments, resolved.
        in_headline: experiments whose headline figures the repository's README shows.
    """
    kept = params["summary"]["kept"]
    surfaces = {name: environment["surfaces"] for name, (_, environment) in published.items()}
    summaries = {
        name: summarize_tables(name, tables, surfaces[name])
        for name, (tables, _) in published.items()
    }
    blocks = ["# Reference results", _introduction(len(published), len(defined))]
    if published:
        blocks += ["## Figures and claims", *_headlines(summaries, kept, surfaces)]
        blocks += ["## Where they were measured", _origin_table(published, summaries, defined)]
        blocks += ["## Published experiments"]
        for name, (tables, environment) in published.items():
            note = settings_note(environment, tables, defined.get(name), params["seeds"])
            blocks += [f"### {name}", note]
            blocks.append(
                f"![{_figure_text(name, surfaces[name])}]({name}/surfaces.png)\n\n"
                f"[All tables]({name}/tables.md), [environment]({name}/environment.json)"
            )
    blocks += _absent({n: e for n, e in defined.items() if n not in published}, in_headline)
    blocks += [
        "## Rebuilding this page",
        "    # measure, with as many replicates as above\n"
        "    snakemake --cores 2 --config 'run=[EXPERIMENT]' replicates=1\n"
        "    python docs/results.py EXPERIMENT              # copy it here, rebuild this page\n"
        "    python docs/results.py                         # rebuild this page alone",
        "No number here is typed by hand. `tests/test_results_page.py` fails if this page is not "
        "what the program makes of the tables here and of `params.yaml`; run the last line after a "
        "change of either.",
    ]
    return "\n\n".join(blocks) + "\n"


def settings_note(
    environment: Mapping[str, Any],
    tables: Tables,
    experiment: Mapping[str, Any] | None,
    seeds: Mapping[str, int],
) -> str:
    """Say whether an experiment was run with the settings that params.yaml has for it now.

    Args:
        environment: of the published experiment.
        tables: of it.
        experiment: the same, resolved, as it is now.
        seeds: that section of params.yaml.
    """
    if experiment is None:
        return "**Differs from params.yaml**, which no longer defines this experiment."
    settings = environment["settings"]
    current = {section: experiment[section] for section in settings}
    for section in _NAMED & settings.keys():  # others may have come that this did not need
        current[section] = {name: experiment[section].get(name, {}) for name in settings[section]}
    then = dict(_leaves({**settings, "surfaces": environment["surfaces"]}))
    now = dict(_leaves({**current, "surfaces": describe_surfaces(experiment)}))
    differences = [
        f"`{key}` was {then.get(key, 'absent')}, is {now.get(key, 'absent')}"
        for key in dict.fromkeys((*then, *now))
        if key not in then or key not in now or then[key] != now[key]
    ]
    for replicate, rows in tables["endpoints"].groupby("replicate"):
        found = sorted(rows["seed"].unique().tolist())
        first = seeds["corner"] + seeds["stride"] * replicate
        if found != list(range(first, first + len(found))):
            differences.append(f"the corners' seeds were {found}, now start at {first}")
    if differences:
        return f"**Differs from params.yaml**: {'; '.join(differences)}."
    return "Run with the settings that `params.yaml` has now."


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each setting."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _introduction(published: int, defined: int) -> str:
    if not published:
        return (
            f"No experiment has its tables here yet; `params.yaml` defines {defined}. Nothing on "
            "this page is a measurement."
        )
    return (
        "Finished experiments, copied from `results/`: their tables, figures, and what made them. "
        f"`params.yaml` defines {defined} experiments; {published} "
        f"{'is' if published == 1 else 'are'} here, and below is a list of those that are not."
    )


def _headlines(
    summaries: Mapping[str, pd.DataFrame], kept: float, surfaces: Mapping[str, Surfaces]
) -> list[str]:
    """Return one headline for the experiments with one replicate, one for those with two, ..."""
    of_count: dict[int, list[pd.DataFrame]] = {}
    for summary in summaries.values():
        of_count.setdefault(summary["replicates"].max(), []).append(summary)
    return [
        render_headline(pd.concat(group), kept, surfaces) for _, group in sorted(of_count.items())
    ]


def _origin_table(
    published: Mapping[str, tuple[Tables, Mapping[str, Any]]],
    summaries: Mapping[str, pd.DataFrame],
    defined: Mapping[str, Any],
) -> str:
    """One row for each experiment: how good its corners should be and are, and what made it."""
    head = ["experiment", "corners' accuracy (%)", "expected (%)", "device", "processor", "commit"]
    head += ["torch", "jobs", "time of all jobs (h)"]
    body = []
    for name, (_, made_by) in published.items():
        # Of the first surface, whose corners the expectation is about.
        is_corners = summaries[name]["metric"] == "accuracy_corner_mean_own"
        corners = summaries[name].loc[is_corners, "mean"].iloc[0]
        cost = made_by["cost"]
        body.append(
            [
                name,
                f"{100 * corners:.2f}",
                _expected(defined.get(name, {})),
                _join(cost["devices"]),
                _join(machine["processor"] for machine in made_by["hardware"]),
                _join(_commit(state) for state in made_by["git"]),
                _join(versions["torch"] for versions in made_by["versions"]),
                str(cost["jobs"]),
                f"{cost['wall_s'] / 3600:.2f}",
            ]
        )
    return markdown_table(head, body) + (
        "\n\nAccuracies on test, of the corners as trained. Time: sum over jobs, which may have "
        "run side by side. A commit *with changes* had files that differed from it."
    )


def _absent(absent: Mapping[str, Any], in_headline: set[str]) -> list[str]:
    """Return the sections on experiments that params.yaml defines and that aren't here."""
    blocks = []
    shown = [name for name in absent if name in in_headline]
    if shown:
        blocks += [
            "## Run, but not here",
            f"Only the headline figures of {', '.join(shown)} are in the repository, in its "
            "[README](../../README.md); their tables have not been copied here.",
        ]
    never = {name: settings for name, settings in absent.items() if name not in in_headline}
    if never:
        body = [
            [name, settings["dataset"], _network(settings["network"]), _expected(settings)]
            for name, settings in never.items()
        ]
        blocks += [
            "## Not run",
            f"`params.yaml` defines {len(never)} experiments of which this repository has no "
            "result. They have not been run; an expected accuracy is what we would look for, not "
            "a measurement.",
            markdown_table(["experiment", "data set", "network", "expected (%)"], body),
        ]
    return blocks


def _expected(settings: Mapping[str, Any]) -> str:
    accuracy = settings.get("expected_accuracy")
    return "" if accuracy is None else f"{100 * accuracy:g}"


def _network(network: Mapping[str, Any]) -> str:
    return " ".join(str(network[key]) for key in ("name", "architecture") if key in network)


def _commit(state: Mapping[str, Any]) -> str:
    if state["commit"] is None:
        return "unknown"
    return state["commit"][:10] + (" *with changes*" if state["dirty"] else "")


def _join(values: Any) -> str:
    return ", ".join(dict.fromkeys(map(str, values))) or "unknown"
