"""What all figures share: fonts, colours, names, titles and saving."""

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from PIL import Image

from fourfold.errors import InputError
from fourfold.files.atomic import atomic_path

# Okabe and Ito (2008): eight colours that colour-blind readers tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8C8C8C"
PALE = "#D0D0D0"  # bands behind lines and marks
BORDER: dict[str, Any] = {"color": "#BBBBBB", "linewidth": 0.4}

FULL_WIDTH = 7.0  # inches; two columns of a paper
_TITLE_WIDTH = 100  # characters that a figure of full width holds
_MOST_COLUMNS = 4  # of panels beside each other
NARROW_WIDTH = 4.2  # inches; the least that holds titles and legends
MARKED_WIDTH = 0.6  # points; outlines of markers and thin lines

T = TypeVar("T")

# Keeps text readable on any colour.
HALO: list[AbstractPathEffect] = [withStroke(linewidth=1.6, foreground="white")]

_STATISTICS = {
    "reestimated": "BatchNorm re-estimated",
    "none": "no BatchNorm",
    "interpolated": "BatchNorm interpolated",
    "repaired": "layers repaired",
}

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
            **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 8),
            **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7),
            "figure.titlesize": 8.5,
            **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
            **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
            "axes.axisbelow": True,
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
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    # A palette: a third of the bytes, in the report too. By an octree colours differ by 5 of 255 at
    # most; by median cut, where rare ones are merged, orange became vermillion.
    with Image.open(drawn) as image:
        palette = image.convert("RGB").quantize(
            256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
    with atomic_path(f"{path_stem}.png") as temporary:
        palette.save(temporary, "PNG", optimize=True)
    with atomic_path(f"{path_stem}.svg") as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def shown_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the split that figures show."""
    return table[table["split"] == "test"]


def heading(what: str, rows: pd.DataFrame, seeds: Sequence[int], *details: str) -> str:
    """Return a title: experiment and subject, then split, n, replicate, seeds, details."""
    first, replicates = rows.iloc[0], rows["replicate"].unique()
    plural = "s" if len(replicates) > 1 else ""
    facts = [f"replicate{plural} {', '.join(map(str, replicates))}", *details]
    if len(seeds) > 4 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        facts[0] += f" (corner seeds {seeds[0]} to {seeds[-1]})"
    elif seeds:
        facts[0] += f" (corner seeds {', '.join(map(str, seeds))})"
    if "n" in rows.columns:
        facts = [f"{first['split']} split, n = {first['n']:,}", *facts]
    return f"{first['experiment']}: {what}\n{textwrap.fill(', '.join(facts), _TITLE_WIDTH)}"


def in_rows(panels: Sequence[T]) -> list[Sequence[T]]:
    """Return panels in rows of at most four, all as long as the first but for the last one."""
    rows = math.ceil(len(panels) / _MOST_COLUMNS)
    columns = math.ceil(len(panels) / max(rows, 1))
    return [panels[start : start + columns] for start in range(0, len(panels), max(columns, 1))]


def panel_title(title: str, figure: Figure, columns: int) -> str:
    """Return a title in lines that fit above one of so many panels beside each other."""
    width = int(_TITLE_WIDTH * figure.get_figwidth() / FULL_WIDTH / columns)
    return textwrap.fill(title, width, break_on_hyphens=False)


def statistics(rows: pd.DataFrame) -> str:
    """Return a detail of a heading: where the BatchNorm statistics of the networks come from."""
    return " / ".join(_STATISTICS[kind] for kind in rows["statistics"].unique())


def without_number(rows: pd.DataFrame, column: str) -> list[str]:
    """Return what a title says of surfaces that can't be drawn, for a network gave no numbers."""
    names = rows.loc[rows[column].isna(), "surface"].unique()
    return [f"NaN: {', '.join(names)}"] if len(names) else []


def only_text(text: str) -> Figure:
    """Return a figure that says in one line why it shows nothing."""
    figure = Figure((FULL_WIDTH, 0.4))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def one_example(rows: pd.DataFrame) -> str:
    """Return what one example is worth in accuracy, the resolution of a figure of `rows`."""
    return f"one example = {100 / rows['n'].iloc[0]:.2g} points"


def mark(marker: str, size: float, colour: str, filled: bool = True, **more: Any) -> dict[str, Any]:
    """Return how a mark without a line looks; a hollow one is white inside."""
    look = {"linestyle": "", "marker": marker, "markersize": size, "color": colour}
    return look | {"markerfacecolor": colour if filled else "white"} | more


def legend(
    figure: Figure, looks: Iterable[dict[str, Any]], ncols: int, title: str | None = None
) -> None:
    """Write the legend below a figure, of lines and marks that look so."""
    handles = [Line2D([], [], **look) for look in looks]
    figure.legend(handles=handles, loc="outside lower center", ncols=ncols, title=title)


def note_off_scale(axes: Axes, text: str, at: tuple[float, float], aside: float, up: float) -> None:
    """Write `text`, a value, so many points beside the mark that stands at the rim for it."""
    axes.annotate(
        f"{text} (off scale)",
        at,
        xytext=(aside, up),
        textcoords="offset points",
        ha="left" if aside > 0 else "right",
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
    surfaces = list(surfaces)
    if unknown := [name for name in dict.fromkeys(names) if name not in surfaces]:
        raise InputError(
            f"the table has the surfaces {unknown}, which are not among those to draw, {surfaces}."
        )
    return in_order(names, surfaces)


def surface_style(surface: str, surfaces: Iterable[str]) -> tuple[str, str]:
    """Return colour and marker of `surface`, by its place among `surfaces`."""
    place, turn = list(surfaces).index(surface), colour_turn(surface, surfaces)
    return _COLOURS[place % len(_COLOURS)], _MARKERS[(place + turn) % len(_MARKERS)]


def colour_turn(surface: str, surfaces: Iterable[str]) -> int:
    """Return how many surfaces before this one have its colour."""
    return list(surfaces).index(surface) // len(_COLOURS)
