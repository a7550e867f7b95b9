"""The explorer: finished experiments in one page that needs no network and no server."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from operator import itemgetter
from typing import Any, NamedTuple

import pandas as pd
from plotly.offline import get_plotlyjs

from fourfold import __version__
from fourfold.combination.baselines import Surfaces
from fourfold.errors import InputError
from fourfold.report.explorer.data import Cached, describe_replicate, predictions_of
from fourfold.report.explorer.predictions import deflated
from fourfold.surfaces.shapes import shape_of

__all__ = ["LARGEST", "Cached", "Predictions", "pack_predictions", "render_explorer"]

LARGEST = 25_000_000  # bytes of the page
_AROUND = 4_000  # bytes around the predictions of a surface
_SCRIPTS = ("predictions.js", "lattice.js", "charts.js", "page.js")
_BASE64 = 3 / 4  # bytes in a character


class Predictions(NamedTuple):
    """Predictions of one surface, as they stand in the page.

    Attributes:
        stored: JSON of the networks, empty if none has room.
        said: what the page says of them.
    """

    stored: str
    said: Mapping[str, Any]


def render_explorer(
    tables: Mapping[str, pd.DataFrame],
    surfaces: Mapping[str, Surfaces],
    cached: Mapping[tuple[str, int, str], Callable[[], Cached]],
    largest: int = LARGEST,
    packed: Mapping[tuple[str, int, str], Predictions] = {},
) -> str:
    """Return the page: HTML with styles, scripts, data and plotly in it.

    Predictions take the room that the rest leaves, in equal shares: where those of a whole lattice
    don't fit, those of every second point are there, or fewer. The page says which.

    Args:
        tables: `grid`, `barrier`, `merge`, `ensemble` and `rival` of all experiments and
            replicates, by name.
        surfaces: experiment -> its surfaces, in the order in which they are shown.
        cached: (experiment, replicate, surface) -> what loads the logits; those that are missing
            have no ensembles by click.
        largest: bytes of the page.
        packed: of surfaces without logits, what `pack_predictions` returned of them.

    Raises:
        InputError: if the grids are not of these surfaces, or the page is larger than `largest`
            without any prediction that it would have to pack.
    """
    replicates = []
    for (experiment, replicate), grid in tables["grid"].groupby(
        ["experiment", "replicate"], sort=False
    ):
        is_here = {
            name: (table["experiment"] == experiment) & (table["replicate"] == replicate)
            for name, table in tables.items()
        }
        here = {name: table[is_here[name]] for name, table in tables.items()} | {"grid": grid}
        replicates.append(describe_replicate(here, surfaces.get(experiment, {})))
    waiting = [
        (place, (one["experiment"], one["replicate"], surface["name"]), surface)
        for one in replicates
        for place, surface in enumerate(one["surfaces"])
    ]
    blobs: list[str] = []
    for _, key, surface in waiting:
        if key in packed:
            _add(blobs, surface, packed[key])
    left = largest - len(_page(replicates, blobs).encode())
    if left < 0:
        raise InputError(
            f"the explorer of {len(replicates)} replicates takes {largest - left:,} bytes before "
            f"any prediction is packed, more than {largest:,}; name fewer experiments in `run`."
        )
    waiting = [one for one in waiting if one[1] in cached and one[1] not in packed]
    # What the first surfaces of all experiments leave is shared by all second ones, and so on.
    waiting.sort(key=itemgetter(0))
    for k, (_, key, surface) in enumerate(waiting):
        limit = int((left // (len(waiting) - k) - _AROUND) * _BASE64)
        found = _pack(surface, surfaces[key[0]], cached[key](), limit)
        _add(blobs, surface, found)
        left -= len(found.stored) + _AROUND
    return _page(replicates, blobs)


def pack_predictions(
    tables: Mapping[str, pd.DataFrame], surfaces: Surfaces, name: str, cached: Cached, limit: int
) -> Predictions:
    """Return predictions of one surface, to be kept for a page that is made without its logits.

    Args:
        tables: those of `render_explorer`, of one replicate.
        surfaces: of the experiment.
        name: of the surface.
        cached: its logits.
        limit: bytes that the networks may take; of a lattice that doesn't fit, a coarser one is
            kept.

    Raises:
        InputError: if the grids are not of these surfaces.
    """
    described = describe_replicate(tables, surfaces)["surfaces"]
    return _pack(described[list(surfaces).index(name)], surfaces, cached, int(limit * _BASE64))


def _pack(
    surface: Mapping[str, Any], surfaces: Surfaces, cached: Cached, limit: int
) -> Predictions:
    shape = shape_of(surfaces[surface["name"]])
    packed, errors = predictions_of(surface, shape, cached, limit)
    if packed is None:
        return Predictions("", {"images": len(cached.labels), "networks": []})
    stored = {
        "images": packed.images,
        "steps": packed.steps,
        "below": _text(deflated(packed.below)),
        "above": _text(deflated(packed.above)),
        "networks": {network: _text(stream) for network, stream in packed.streams.items()},
    }
    said = {
        "images": packed.images,
        "steps": packed.steps,
        "networks": list(packed.streams),
        "errors": errors,
    }
    return Predictions(json.dumps(stored, separators=(",", ":")), said)


def _add(blobs: list[str], surface: dict[str, Any], found: Predictions) -> None:
    surface["predictions"] = dict(found.said)
    if found.stored:
        surface["predictions"]["blob"] = len(blobs)
        blobs.append(found.stored)


def _page(replicates: Sequence[Mapping[str, Any]], blobs: Sequence[str]) -> str:
    folder = files(__package__)
    read = {
        name: (folder / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", *_SCRIPTS)
    }
    data = json.dumps({"version": __version__, "replicates": replicates}, separators=(",", ":"))
    parts = {
        "style": read["page.css"],
        "plotly": get_plotlyjs(),
        "data": _inert("data", data),
        "predictions": "\n".join(_inert(f"predictions-{k}", blob) for k, blob in enumerate(blobs)),
        "scripts": "\n".join(read[name] for name in _SCRIPTS),
    }
    page = read["page.html"]
    for name, text in parts.items():
        before, _, after = page.partition(f"<!-- {name} -->")
        page = before + text + after
    return page


def _inert(name: str, text: str) -> str:
    """Return a script of JSON, which no text in it can end."""
    text = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _text(stream: bytes) -> str:
    return base64.b64encode(stream).decode()
