"""Time how an explorer of nine experiments, three surfaces each, opens in headless Chromium.

    python benchmarks/explorer.py [--quick] [--output explorer.html]

Tables are those of the published digits, three times, their grids made finer: 121 points a surface.
Predictions are drawn, of ten classes: networks are right on 78 % of 10,000 images, and two of them
differ on 16 %. They don't agree with those tables, so they are kept in the finer steps. What has no
room in the page is left out, as always: here all networks of most surfaces but the corners.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _timing import add_common_arguments, print_machine, verdict
from full_size import TARGETS
from numpy.typing import NDArray
from playwright.sync_api import Browser, sync_playwright
from scaling import ROOT

from fourfold.files.table import read_table
from fourfold.report.explorer import LARGEST, Cached, render_explorer
from fourfold.surfaces.points import lattice_rows
from fourfold.surfaces.shapes import SQUARE

PUBLISHED = ("digits-vgg16", "digits-resnet18", "digits-vit")
SURFACES = ("linear", "bezier", "trajectory")
TABLES = ("barrier", "merge", "ensemble", "rival")
COPIES, POINTS, IMAGES, CLASSES = 3, 11, 10_000, 10
SECONDS = 2  # until map, profile, tables and rivals are drawn


def read_tables() -> dict[str, pd.DataFrame]:
    """Return the first replicate's tables of all experiments, nine by name."""
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in ("grid", *TABLES)}
    for name, copy in product(PUBLISHED, range(COPIES)):
        folder = ROOT / "docs" / "results" / name
        files = {table: [folder / f"{table}.parquet"] for table in TABLES}
        files["grid"] = [folder / f"grid-{surface}.parquet" for surface in SURFACES]
        for table, paths in files.items():
            found[table].append(read_table(table, *paths).assign(experiment=f"{name}-{copy}"))
    tables = {name: pd.concat(every, ignore_index=True) for name, every in found.items()}
    return tables | {"grid": refine(tables["grid"])}


def refine(grid: pd.DataFrame) -> pd.DataFrame:
    """Return grids of POINTS along each axis, each point with the numbers of the nearest one."""
    axes = list(SQUARE.axes)
    lattice = np.array(SQUARE.lattice(POINTS))
    parts = [grid.drop(lattice_rows(grid).index)]
    for _, rows in lattice_rows(grid).groupby(["experiment", "surface", "split"], sort=False):
        places = rows[axes].to_numpy(float)
        nearest = np.linalg.norm(lattice[:, None] - places, axis=2).argmin(axis=1)
        finer = rows.iloc[nearest].copy()
        finer[axes] = lattice
        parts.append(finer)
    return pd.concat(parts, ignore_index=True)


def draw(images: int, seed: int) -> Cached:
    """Return logits of networks that mostly say the same."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(CLASSES, size=images)
    common = generator.normal(size=(images, CLASSES)) + 2.5 * np.eye(CLASSES)[labels]

    def networks(count: int) -> NDArray[np.float16]:
        own = generator.normal(size=(count, images, CLASSES))
        return (3 * common + own).astype(np.float16)

    points = SQUARE.lattice(POINTS)
    return Cached(points, networks(len(points)), networks(len(SQUARE.corner_rows)), labels)


def loaders(
    tables: Mapping[str, pd.DataFrame], images: int
) -> Iterator[tuple[tuple[str, int, str], partial[Cached]]]:
    named = tables["grid"][["experiment", "surface"]].drop_duplicates()
    for seed, (experiment, surface) in enumerate(named.itertuples(index=False)):
        yield (experiment, 0, surface), partial(draw, images, seed)


def opened(browser: Browser, path: Path) -> tuple[float, float, float]:
    """Return seconds until all but the relief is there, until all is, and of a first ensemble."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    start = time.perf_counter()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")  # answered when the page is idle: after the relief
    drawn = time.perf_counter() - start
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1e3
    start = time.perf_counter()
    page.get_by_role("button", name="the four corners, as trained", exact=True).click()
    page.wait_for_selector(f'#ensemble[data-members="{page.evaluate("state.members.join()")}"]')
    computed = time.perf_counter() - start
    page.close()
    return loaded, drawn, computed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_common_arguments(parser)
    parser.add_argument("--output", type=Path, help="keep the page there")
    parser.add_argument("--browser", default="/usr/bin/chromium", help="executable of Chromium")
    arguments = parser.parse_args()
    print_machine(arguments)
    tables = read_tables()
    described: Any = TARGETS.described(PUBLISHED[0])
    surfaces = {
        experiment: {name: described[name] for name in SURFACES}
        for experiment in tables["grid"]["experiment"].unique()
    }
    start = time.perf_counter()
    cached = dict(loaders(tables, 100 if arguments.quick else IMAGES))
    html = render_explorer(tables, surfaces, cached)
    made = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        path = arguments.output or Path(folder) / "explorer.html"
        path.write_text(html, encoding="utf-8")
        browser = started.chromium.launch(executable_path=arguments.browser, args=["--no-sandbox"])
        rounds = [opened(browser, path) for _ in range(arguments.rounds or 5)]
        browser.close()
    size = len(html.encode())
    is_small = size <= LARGEST
    loaded, drawn, computed = (statistics.median(of) for of in zip(*rounds, strict=True))
    print(f"  {len(surfaces)} experiments, {len(cached)} surfaces of {POINTS**2} points")
    print(f"  made in {made:.0f} s, what it takes to draw the predictions included")
    print(f"  size {size / 1e6:.1f} MB; target at most {LARGEST / 1e6:.0f}: {verdict(is_small)}")
    print(f"  opens in {loaded:.2f} s; target under {SECONDS}: {verdict(loaded < SECONDS)}")
    print(f"  the relief is there after {drawn:.2f} s, drawn by the processor")
    print(f"  first ensemble {1e3 * computed:.0f} ms after the click")


if __name__ == "__main__":
    main()
