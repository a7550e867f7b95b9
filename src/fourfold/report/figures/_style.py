"""What all figures share: fonts, colours, names, titles, the check of a table, and saving."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourfold.errors import InputError
from fourfold.files.atomic import atomic_path
from fourfold.files.table import SCHEMAS

# Okabe and Ito (2008): eight colours that colour-blind readers tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8C8C8C"

FULL_WIDTH = 7.0  # inches; two columns of a paper
NARROW_WIDTH = 4.2  # inches; the least that holds titles and legends
MARKED_WIDTH = 0.6  # points; outlines of markers and thin lines

# Of surfaces in their order; after the last colour they begin again, with other markers.
_COLOURS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY, BLACK)
_MARKERS = "os^DvPX"

# Starting from "default" shuts out the reader's own matplotlibrc: one table, one figure, anywhere.
# DejaVu Sans comes with matplotlib. `paper_style` decorates whatever makes or draws a figure.
paper_style = style.context(
    [
        "default",
        {
            "font.family": "DejaVu Sans",
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.labelsize": 8,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "legend.fontsize": 7,
            "figure.titlesize": 8.5,
            "axes.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "grid.linewidth": 0.4,
            "grid.color": "#DDDDDD",
            "lines.linewidth": 1.1,
            "legend.frameon": False,
            "svg.hashsalt": "fourfold",
        },
    ]
)


@paper_style
def save_figure(figure: Figure, path_stem: str | Path) -> None:
    """Write `figure` to `<path_stem>.png` and `<path_stem>.svg`, each completely or not at all.

    Equal figures give equal bytes. The figures of this package are unknown to pyplot, so that
    nothing is left open afterwards.
    """
    formats: dict[str, dict[str, Any]] = {
        "png": {"dpi": 150, "pil_kwargs": {"optimize": True}},
        "svg": {"metadata": {"Date": None}},
    }
    for suffix, options in formats.items():
        with atomic_path(f"{path_stem}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, **options)


def check_rows(table: str, frame: pd.DataFrame, *, split: str | None = None) -> pd.DataFrame:
    """Return the rows of `split` (all rows if None) of a table that is fit to be drawn.

    Raises:
        InputError: if the frame is empty, lacks columns of the table or rows of the split.
    """
    missing = [column for column in SCHEMAS[table].names if column not in frame.columns]
    if missing:
        raise InputError(
            f"table {table!r} lacks the columns {missing}; complete it with table.make_table."
        )
    if frame.empty:
        raise InputError(f"table {table!r} has no rows; a figure needs at least one.")
    if split is None:
        return frame
    rows = frame[frame["split"] == split]
    if rows.empty:
        raise InputError(
            f"table {table!r} has no rows of split {split!r}; "
            f"it has {sorted(frame['split'].unique())}."
        )
    return rows


def check_run(table: str, frame: pd.DataFrame, *, split: str | None = None) -> pd.DataFrame:
    """Do as `check_rows`, and refuse a table of more than one experiment or replicate."""
    rows = check_rows(table, frame, split=split)
    for key in ("experiment", "replicate"):
        found = sorted(rows[key].unique().tolist())
        if len(found) > 1:
            raise InputError(
                f"table {table!r} holds {key}s {found}; this figure shows one {key}, "
                "so select its rows first."
            )
    return rows


def heading(what: str, rows: pd.DataFrame, seeds: Sequence[int], *details: str) -> str:
    """Return a title of two lines: experiment and subject; split, n, replicate, seeds, details."""
    first = rows.iloc[0]
    facts = [f"replicate {first['replicate']}", *details]
    if seeds:
        facts[0] += f" (corner seeds {', '.join(map(str, seeds))})"
    if "n" in rows.columns:
        facts = [f"{first['split']} split, n = {first['n']:,}", *facts]
    return f"{first['experiment']}: {what}\n{', '.join(facts)}"


def one_example(rows: pd.DataFrame) -> str:
    """Return what one example is worth in accuracy, the resolution of a figure of `rows`."""
    return f"one example = {100 / rows['n'].iloc[0]:.2g} points"


def note_off_scale(
    axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float]
) -> None:
    """Write `text`, a value, beside the mark that stands at the rim for it."""
    axes.annotate(
        f"{text} (off scale)",
        at,
        xytext=offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        va="center",
        fontsize=6.5,
    )


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the distinct `names`: the known ones in their order, then the others by alphabet."""
    found, known = set(names), list(known)
    return [name for name in known if name in found] + sorted(found - set(known))


def surface_order(names: Iterable[str], surfaces: Iterable[str]) -> list[str]:
    """Return the distinct surfaces of a table in their order.

    Raises:
        InputError: if one is not among `surfaces`.
    """
    found, surfaces = dict.fromkeys(names), list(surfaces)
    if unknown := [name for name in found if name not in surfaces]:
        raise InputError(
            f"the table has the surfaces {unknown}, which are not among those to draw, {surfaces}."
        )
    return [name for name in surfaces if name in found]


def surface_style(surface: str, surfaces: Iterable[str]) -> tuple[str, str]:
    """Return colour and marker of `surface`, by its place among `surfaces`."""
    place = list(surfaces).index(surface)
    turn, place = divmod(place, len(_COLOURS))
    return _COLOURS[place], _MARKERS[(place + turn) % len(_MARKERS)]
