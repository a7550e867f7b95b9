"""Write a surface of a finished experiment into a folder to share, in the layout of model hubs.

The folder holds the surface (model.safetensors), what builds and feeds its networks (config.json),
their BatchNorm statistics at the points of the grid (statistics.safetensors), a card (README.md)
and an example. `fourfold.load_surface` and `fourfold.load_network` read it.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from fourfold.errors import InputError
from fourfold.evaluation.grid import predict
from fourfold.evaluation.logits import SurfaceLogits, to_half
from fourfold.files.atomic import atomic_folder, write_text
from fourfold.files.reading import shortened
from fourfold.files.table import read_metadata, read_table
from fourfold.files.tensors import read_header, state_hash
from fourfold.pipeline.commands._job import read_corners
from fourfold.pipeline.commands._network_job import NetworkJob
from fourfold.pipeline.commands._settings import check_described
from fourfold.pipeline.params import check_name, read_params
from fourfold.pipeline.params_check import check_params
from fourfold.pipeline.progress import Progress
from fourfold.pipeline.reads import BESIDE
from fourfold.pipeline.targets import Targets
from fourfold.report.card import Source, render_surface_card
from fourfold.report.pairs import main_surface
from fourfold.surfaces.checkpoint import load_trajectory
from fourfold.surfaces.shapes import shape_of
from fourfold.surfaces.surface import Surface
from fourfold.zoo.card import check_license
from fourfold.zoo.description import CARD, STATISTICS_OF, Description
from fourfold.zoo.export import portable, write_folder
from fourfold.zoo.load import load_network

_TRAINED = ("seeds", "run", "fork")  # kinds of corner sets whose networks the workflow trains
# Kind of a corner set -> the rule that makes it of networks that are there.
_MAKES = {"aligned": "align_corners", "random": "randomize_corners"}
_MAKES |= {"run": "select_trajectory_corners", "files": "import_corners"}
_TABLES = ("barrier", "certificate", "difference", "merge", "rival")
# Logits of the tables are rounded to float16; those of other precisions are as far from float32.
_AGREE = {"float32": 2e-3, "tf32": 2e-2, "bfloat16": 1e-1}
# What `Surface.save` writes itself.
_OWN_HEADER = {"format", "name", "shape", "train_corners", "corner_sha256", "sha256", "layout"}
_OWN_HEADER |= {"buffers", "shared"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("experiment", help="its name in params.yaml")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--surface", help="its name (default: the experiment's main surface)")
    parser.add_argument("--replicate", type=int, default=0, help="its number (default: 0)")
    parser.add_argument(
        "--license",
        default="unknown",
        help="of the networks, as model hubs write it, such as mit (default: unknown)",
    )
    parser.add_argument(
        "--file",
        type=Path,
        nargs="+",
        default=[Path("params.yaml")],
        help="params.yaml, and files laid over it as by snakemake --configfile",
    )
    parser.add_argument(
        "--device",
        default=os.environ.get("FOURFOLD_DEVICE", "auto"),
        help="auto, cpu or cuda: that of the tables (default: FOURFOLD_DEVICE, else auto)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the folder, completely or not at all."""
    check_license(arguments.license)
    params = _read(arguments.file)
    of = _Finished(Targets(params), arguments.experiment, arguments.replicate, arguments.surface)
    job = of.network_job(arguments.device)
    logits = SurfaceLogits.load(of.path("logits"))
    if logits.statistics not in STATISTICS_OF:
        raise InputError(
            f"the tables of surface {of.surface!r} are of networks that are not on it, with "
            f"'batchnorm: {logits.statistics}'; choose another one of {', '.join(of.described)}."
        )
    surface, evaluation = Surface.load(of.path("surface")), job.evaluation()
    tables = {name: read_table(name, of.path(name)) for name in _TABLES}
    with atomic_folder(arguments.output) as temporary:
        written = write_folder(
            temporary,
            surface,
            job.build_model(),
            _describe(job, logits, tables["merge"]),
            points=logits.points,
            images=evaluation["batchnorm_images"],
            augment=evaluation["augment"],
            on_point=Progress(f"{of.experiment} {of.surface}", unit="point").on_item,
            metadata={key: value for key, value in of.header.items() if key not in _OWN_HEADER},
        )
        dataset, splits = of.resolved["dataset"], job.dataset.splits
        source = params["datasets"][dataset]["source"]["name"]
        card = render_surface_card(
            written,
            tables,
            of.described[of.surface],
            Source(dataset, source, {name: len(split) for name, split in splits.items()}),
            of.made(),
            license=arguments.license,
            kept=params["summary"]["kept"],
            agreement=_check_logits(temporary, written, job, logits, of.grid["device"]),
        )
        write_text(temporary / CARD, card)
    size = sum(path.stat().st_size for path in arguments.output.iterdir())
    print(f"{arguments.output}: surface {of.surface} of {of.experiment}, {size:,} bytes")
    if arguments.license == "unknown":
        print(f"note: {CARD} states no license; give one with --license", file=sys.stderr)


class _Finished:
    """A surface of a finished replicate, whose files are those of today's params.yaml.

    Attributes:
        described: the surfaces of the experiment, see `Targets.described`.
        surface: name of the one.
        resolved: the experiment's values, see `resolve`.
        header, grid: what made the surface, and its grid table.
    """

    def __init__(
        self, targets: Targets, experiment: str, replicate: int, surface: str | None
    ) -> None:
        """Find the files, and refuse missing ones and those of other settings."""
        check_name(targets.params, "experiments", experiment, "the command line")
        if replicate < 0:
            raise InputError(f"--replicate is {replicate}; it must be 0 or more.")
        self._targets, self.experiment, self.replicate = targets, experiment, replicate
        self.resolved = targets.experiments[experiment]
        self.described = check_described(targets.described(experiment), experiment)
        self.surface = self._choose(surface)
        self._folder = Path("results", experiment, str(replicate))
        of = self.described[self.surface]
        self._sets = targets.made_from(experiment, of["corners"])
        self._corners = targets.networks(experiment, replicate, self._sets[-1])
        tables = {name: f"tables/{name}.parquet" for name in _TABLES}
        self._files = {
            "surface": f"surfaces/{self.surface}.safetensors",
            "logits": f"logits/{self.surface}.safetensors",
            "grid": f"tables/grid-{self.surface}.parquet",
            **tables,
        }
        self._require()
        self.header, self.grid = read_header(self.path("surface")), read_metadata(self.path("grid"))
        rule = "build_linear_surface" if of["fit"] is None else "fit_bezier_surface"
        self._check_settings(self.header, rule, self.path("surface"))
        self._evaluated = self._check_settings(self.grid, "evaluate_grid", self.path("grid"))
        self._check_surface()
        for corners in self._sets:
            self._check_corners(corners)
        self._check_data()
        kept = targets.params["summary"]["kept"]
        if read_metadata(self.path("difference")).get("kept") != kept:
            self._refuse(self.path("difference"), "summary.kept")

    def path(self, name: str) -> Path:
        """Return the path of a file of the surface."""
        return self._folder / self._files[name]

    def network_job(self, device: str) -> NetworkJob:
        """Return the job that evaluated the surface, to go on from."""
        job = NetworkJob(
            argparse.Namespace(
                command="evaluate-grid",
                experiment=self.experiment,
                replicate=self.replicate,
                settings=json.dumps(self._evaluated),
                data=Path("data", self.resolved["dataset"]),
                device=device,
                threads=self.grid["threads"],
            )
        )
        if job.facts["data_sha256"] != self.grid["data_sha256"]:
            raise InputError(
                f"{job.arguments.data} holds other images than {self.path('grid')} is of; "
                f"{self._cure()}."
            )
        return job

    def made(self) -> dict[str, Any]:
        """Return what made the surface, for its card."""
        of = self.described[self.surface]
        headers = [read_header(path) for path in self._corner_paths()]
        trained = headers[-1].get("settings", {}).get("training") if headers else None
        files = {
            Path(header["file"]).name: header["file_sha256"]
            for header in headers
            if "file_sha256" in header
        }
        return {
            "experiment": self.experiment,
            "replicate": self.replicate,
            "seeds": self.header["seeds"][self.surface],
            "corners": {key: of[key] for key in ("kind", "method", "origin_kind") if key in of},
            **({"files_sha256": files} if files else {}),
            **({"training": trained or "not recorded"} if headers and not files else {}),
            **{key: self.header["settings"][key] for key in ("fit",) if of["fit"] is not None},
            **self.grid["settings"],
            **{key: self.grid[key] for key in ("data_sha256", "device", "threads", "versions")},
            "git": self.header["git"],
        }

    def _choose(self, asked: str | None) -> str:
        chosen = main_surface(self.described) if asked is None else asked
        names = ", ".join(self.described)
        if chosen is None:
            raise InputError(
                f"{self.experiment} has no main surface, a fitted square on independent networks; "
                f"name one with --surface: {names}."
            )
        if chosen not in self.described:
            raise InputError(
                f"--surface is {shortened(chosen)}, which {self.experiment} doesn't have; choose "
                f"one of {names}."
            )
        return chosen

    def _corner_paths(self) -> list[Path]:
        return [self._folder / file for file in self._corners if not file.endswith(".json")]

    def _paths(self, corners: str) -> list[Path]:
        files = self._targets.networks(self.experiment, self.replicate, corners)
        return [self._folder / file for file in files]

    def _ancestor(self, corners: str) -> Path:
        run = self._targets.first_run(self.experiment, self.replicate, corners)
        return self._folder / run

    def _selection(self, corners: str) -> Path:
        return self._folder / f"tables/selection-{corners}.parquet"

    def _require(self) -> None:
        files = [*map(self.path, self._files)]
        for name in self._sets:
            kind = self.resolved["corners"][name]["kind"]
            files += self._paths(name)
            files += [self._ancestor(name)] if kind == "fork" else []
            files += [self._selection(name)] if kind == "run" else []
        files += map(Path, self._targets.data_files([self.experiment]))
        if missing := [path for path in files if not path.is_file()]:
            more = f" and {len(missing) - 1} more" if missing[1:] else ""
            raise InputError(
                f"{self.experiment}, replicate {self.replicate}, is not finished: {missing[0]}"
                f"{more} isn't there; {self._cure()}."
            )

    def _check_settings(
        self, made_by: Mapping[str, Any], rule: str, path: Path, corners: str | None = None
    ) -> dict[str, Any]:
        """Return what a job reads, refused if its file was made with something else."""
        read = self._targets.read(rule, self.experiment, surface=self.surface, corners=corners)
        stated = {key: value for key, value in read.items() if key not in BESIDE}
        found = made_by.get("settings", {})
        if differing := [key for key in stated if stated[key] != found.get(key)]:
            named = {"corners": f"corners.{corners}"}
            self._refuse(path, " and ".join(named.get(key, key) for key in differing))
        return stated

    def _check_surface(self) -> None:
        """Refuse a surface of another shape or seed, or through other corners than today's."""
        targets, of = self._targets, self.described[self.surface]
        known = (self.experiment, self.replicate)
        seeds = self.header["seeds"][self.surface]
        if shape_of(self.header["shape"]) != targets.shape(self.experiment, self.surface):
            self._refuse(self.path("surface"), "shape")
        if of["fit"] is not None and seeds["fit"] != targets.fit_seed(self.replicate):
            self._refuse(self.path("surface"), "seeds.fit")
        if files := targets.corner_files(*known, self.surface):
            states, _ = read_corners([self._folder / file for file in files])
            is_same = [state_hash(state) for state in states] == self.header["corner_sha256"]
        else:
            is_same = seeds["corners"] == targets.corner_seeds(*known, of["corners"])
        if not is_same:
            self._refuse(self.path("surface"), f"surfaces.{self.surface}.corners")

    def _check_corners(self, corners: str) -> None:
        """Refuse a corner set that was made otherwise."""
        kind = self.resolved["corners"][corners]["kind"]
        if kind == "run":
            path = self._selection(corners)
            self._check_settings(read_metadata(path), _MAKES[kind], path, corners)
        elif kind in _MAKES:
            for path in self._paths(corners):
                header = read_header(path)
                self._check_settings(header, _MAKES[kind], path, corners)
                seed = header["seeds"][corners]["directions"] if kind == "random" else None
                if seed not in (None, self._targets.fit_seed(self.replicate)):
                    self._refuse(path, "seeds.fit")
        if kind in _TRAINED:
            read = self._targets.read("train_fork", self.experiment, corners=corners)
            for path in self._corner_paths():
                self._check_trained(path, read)
        if kind == "fork":
            self._check_ancestor(corners)

    def _check_trained(self, path: Path, stated: Mapping[str, Any]) -> None:
        found = read_header(path).get("settings", {})
        if differing := [key for key in stated if found.get(key, stated[key]) != stated[key]]:
            self._refuse(path, " and ".join(differing))

    def _check_ancestor(self, corners: str) -> None:
        """Refuse networks that part from another one, or elsewhere; older files don't say."""
        targets, path = self._targets, self._ancestor(corners)
        self._check_trained(path, targets.read("train_endpoint", self.experiment, run=path.stem))
        epoch = targets.fork_epoch(self.experiment, corners)
        stated = {"epoch": epoch, "sha256": state_hash(load_trajectory(path)[epoch])}
        for fork in self._paths(corners):
            found = read_header(fork).get("ancestor", stated)
            if found["epoch"] != epoch:
                self._refuse(fork, f"corners.{corners}.at")
            if found != stated:
                self._refuse(fork, "ancestor")

    def _check_data(self) -> None:
        """Refuse data that were prepared otherwise."""
        stated = self._targets.params["datasets"][self.resolved["dataset"]]
        for file in self._targets.data_files([self.experiment]):
            found = read_header(file).get("settings", stated)  # older files don't say
            if differing := [key for key in stated if found.get(key) != stated[key]]:
                self._refuse(Path(file), " and ".join(differing))

    def _refuse(self, path: Path, what: str) -> NoReturn:
        raise InputError(
            f"{path} was made with another {what} than params.yaml states; {self._cure()}."
        )

    def _cure(self) -> str:
        # Below the top level Snakemake takes values from files alone.
        more = f" replicates={self.replicate + 1}" if self.replicate else ""
        return f"run `snakemake --cores 2 --config 'run=[{self.experiment}]'{more}` first"


def _read(files: Sequence[Path]) -> dict[str, Any]:
    """Return what files say, each laid over those before it as Snakemake does."""
    from snakemake.utils import update_config

    params: dict[str, Any] = {}
    for file in files:
        update_config(params, read_params(file))
    check_params(params)
    return params


def _describe(job: NetworkJob, logits: SurfaceLogits, merge: pd.DataFrame) -> Description:
    grid, of = job.settings["grid"], job.dataset
    channels, size, _ = of.image_shape
    stated = job.settings["network"].get("normalize") or {"mean": of.mean, "std": of.std}
    best = merge[(merge["surface"] == logits.surface) & (merge["merge"] == "best-point")]
    points = {"center": [*logits.shape.center]}
    if len(best):
        points["best-point"] = [float(best[axis].iloc[0]) for axis in logits.shape.axes]
    return Description(
        network=portable(job.settings["network"]),
        classes=[*of.classes],
        image={"channels": channels, "size": size},
        normalize={key: [*stated[key]] for key in ("mean", "std")},
        batchnorm={
            "statistics": logits.statistics,
            "augment": job.settings["augment"],
            "images": grid["batchnorm_images"],
            **{key: grid[key] for key in ("seed", "batch_size", "precision")},
        },
        points=points,
    )


def _check_logits(
    folder: Path, described: Description, job: NetworkJob, logits: SurfaceLogits, device: str
) -> float:
    """Load center and corners again; return how far their logits on val are from the tables'.

    `device` is that of the tables, for the message.
    """
    images, largest = job.dataset.splits["val"].images, 0.0
    shape, precision = logits.shape, job.settings["grid"]["precision"]
    own = dict(zip(shape.corner_coordinates, logits.own["val"], strict=True))
    points = dict(zip(logits.points, logits.logits["val"], strict=True)) | own
    for point in (shape.center, *shape.corner_coordinates):
        if point not in points:  # a center beside the grid, whose logits are not kept
            continue
        network = load_network(folder, *point, allow=described.builder, device=job.device)
        batch_size = job.settings["grid"]["batch_size"]
        found = predict(network, images, batch_size=batch_size, preprocess=lambda x: x)
        found, stated = to_half(found).float().cpu(), points[point].float()
        difference = float(((found - stated).abs() / (1 + stated.abs())).max())
        if not difference < _AGREE[precision]:
            raise InputError(
                f"at {point} the exported network is not the tables' one: its logits differ by up "
                f"to {difference:.2g}, relative to 1 + their size. The tables were made on "
                f"{device}; take the same --device, or build the results anew."
            )
        largest = max(largest, float((found - stated).abs().max()))
    return largest
