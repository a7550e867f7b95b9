"""Every file that the workflow builds, once: for rules, for pruning, and for records."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fourfold.pipeline.params import resolve

SPLITS = ("train", "val", "test")
FIGURES: tuple[str, ...] = ("surfaces", "surfaces_3d", "profiles", "ensembles", "merges")
FIGURES += ("differences", "training", "geometry")
# Tables of one replicate, beside those of each surface and of each corner set that is chosen.
TABLES = ("barrier", "ensemble", "merge", "geometry", "difference", "endpoints", "training", "cost")
SUMMARY = (
    *(f"results/summary.{kind}" for kind in ("parquet", "csv", "md")),
    "results/metrics.json",
    *(f"results/figures/summary.{kind}" for kind in ("png", "svg")),
)

# What evaluating a few networks takes from the section `grid`.
_EVALUATION: dict[str, tuple[str, ...]] = {
    "grid": ("batchnorm", "batchnorm_images", "seed", "batch_size", "precision")
}
# What the jobs of a rule read of their experiment: sections, of some of them a few keys. `fit` and
# `corners` are those of the job's surface or corner set; `surfaces` is what tables can't tell of
# the surfaces; `degree` is that of the job's surface.
READS: dict[str, tuple[str | dict[str, tuple[str, ...]], ...]] = {
    "train_endpoint": ("network", "augment", "training"),
    "select_trajectory_corners": ("network", "augment", "training", "corners", _EVALUATION),
    "build_linear_surface": ("degree",),
    "fit_bezier_surface": ("network", "augment", "fit", "degree"),
    "evaluate_grid": ("network", "augment", "grid"),
    "compare_ensembles": ("ensembles", "surfaces"),
    "compare_merges": ("network", "augment", _EVALUATION, "surfaces"),
    "measure_geometry": (),
    "measure_differences": (),
    "plot_figures": ("surfaces",),
    "summarize": ("surfaces",),
}


class Targets:
    """The files of all experiments in `run`.

    Attributes:
        experiments: name -> resolved experiment, of all that params.yaml defines.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        """Resolve the experiments of params.yaml.

        Raises:
            InputError: as `resolve`.
        """
        self.params = params
        self.experiments = resolve(params)

    # --- parts of one experiment ---

    def surfaces(self, experiment: str) -> list[str]:
        """Return the names of an experiment's surfaces, in its order."""
        return list(self.experiments[experiment]["surfaces"])

    def fitted(self, experiment: str) -> list[str]:
        """Return the names of the surfaces with free control points to fit."""
        surfaces = self.experiments[experiment]["surfaces"]
        return [name for name, surface in surfaces.items() if surface["fit"] is not None]

    def chosen_corners(self, experiment: str) -> list[str]:
        """Return the names of the corner sets that are chosen from a run."""
        corners = self.experiments[experiment]["corners"]
        return [name for name, one in corners.items() if one["kind"] == "run"]

    def seeds(self, experiment: str, replicate: int | str) -> list[int]:
        """Return the seeds of a replicate's training runs: as many as its corner sets need.

        Replicates are a stride apart, so that more corners don't shift the seeds of the next one.
        """
        corners = self.experiments[experiment]["corners"].values()
        count = max(one["count"] if one["kind"] == "seeds" else 1 for one in corners)
        start = self.params["seeds"]["corner"] + self.params["seeds"]["stride"] * int(replicate)
        return list(range(start, start + count))

    def fit_seed(self, replicate: int | str) -> int:
        """Return the seed of a replicate's fits, the same for all of them."""
        first: int = self.params["seeds"]["fit"]
        return first + int(replicate)

    def tables(self, experiment: str) -> list[str]:
        """Return the names of a replicate's tables."""
        return [
            *(f"grid-{surface}" for surface in self.surfaces(experiment)),
            *(f"selection-{corners}" for corners in self.chosen_corners(experiment)),
            *TABLES,
        ]

    def corner_files(self, experiment: str, replicate: int | str, surface: str) -> list[str]:
        """Return the files that hold the corners of a surface; of chosen ones their list first."""
        name = self.experiments[experiment]["surfaces"][surface]["corners"]
        corners, seeds = (
            self.experiments[experiment]["corners"][name],
            self.seeds(experiment, replicate),
        )
        if corners["kind"] == "run":
            return [f"corners/{name}.json", f"trajectory/seed{seeds[0]}.safetensors"]
        return [f"endpoints/seed{seed}.safetensors" for seed in seeds[: corners["count"]]]

    def job_parts(self, experiment: str, replicate: int | str, part: str) -> list[str]:
        """Return the tables of single jobs that a gathered table is made of.

        Args:
            experiment: name.
            replicate: number.
            part: `training`, `endpoints` or `cost`.
        """
        names = [f"seed{seed}" for seed in self.seeds(experiment, replicate)]
        if part == "training":
            names += self.fitted(experiment)
        if part == "cost":
            surfaces = self.surfaces(experiment)
            names += [*surfaces, *(f"{surface}-grid" for surface in surfaces)]
            names += [f"{corners}-corners" for corners in self.chosen_corners(experiment)]
            names += ["ensembles", "merges", "geometry", "differences"]
        return [f"jobs/{part}-{name}.parquet" for name in names]

    # --- what a job reads ---

    def read(
        self, rule: str, experiment: str, surface: str | None = None, corners: str | None = None
    ) -> dict[str, Any]:
        """Return what the jobs of a rule read of an experiment; when it changes, they run again.

        Args:
            rule: its name.
            experiment: name.
            surface: of the job, where it has one.
            corners: the job's corner set, where it has one.
        """
        of, read = self.experiments[experiment], {}
        for part in READS[rule]:
            if isinstance(part, dict):
                for section, keys in part.items():
                    read[section] = {key: of[section][key] for key in keys}
            elif part == "fit":
                read[part] = of["fits"][of["surfaces"][surface]["fit"]]
            elif part == "degree":
                read[part] = of["surfaces"][surface]["degree"]
            elif part == "surfaces":
                read[part] = self.described(experiment)
            else:
                read[part] = of[part][corners] if part == "corners" else of[part]
        return read

    def described(self, experiment: str) -> dict[str, dict[str, Any]]:
        """Return surface -> its corner set, the kind of that, and the name of its fit or None."""
        of = self.experiments[experiment]
        return {
            name: {
                "corners": surface["corners"],
                "kind": of["corners"][surface["corners"]]["kind"],
                "fit": surface["fit"],
            }
            for name, surface in of["surfaces"].items()
        }

    # --- all of it ---

    def results(self, experiment: str, replicate: int | str) -> list[str]:
        """Return what a replicate is run for: relative to its folder."""
        surfaces = self.surfaces(experiment)
        return [
            *(
                f"{kind}/{surface}.safetensors"
                for kind in ("surfaces", "logits", "examples")
                for surface in surfaces
            ),
            *(f"tables/{table}.parquet" for table in self.tables(experiment)),
            *(f"tables/csv/{table}.csv" for table in self.tables(experiment)),
            *(f"figures/{figure}.{kind}" for figure in FIGURES for kind in ("png", "svg")),
        ]

    def steps(self, experiment: str, replicate: int | str) -> list[str]:
        """Return what is built on the way there."""
        seeds = self.seeds(experiment, replicate)
        return [
            *(f"{kind}/seed{k}.safetensors" for kind in ("endpoints", "trajectory") for k in seeds),
            *(f"corners/{corners}.json" for corners in self.chosen_corners(experiment)),
            *(
                file
                for part in ("training", "endpoints", "cost")
                for file in self.job_parts(experiment, replicate, part)
            ),
        ]

    def replicates(self) -> Iterator[tuple[str, int]]:
        """Yield experiment and replicate of all that `run` asks for."""
        for experiment in self.params["run"]:
            for replicate in range(self.params["replicates"]):
                yield experiment, replicate

    def per_replicate(self, *files: str) -> list[str]:
        """Return some files of every replicate, relative to its folder."""
        return [
            f"results/{experiment}/{replicate}/{file}"
            for experiment, replicate in self.replicates()
            for file in files
        ]

    def all_results(self) -> list[str]:
        """Return what `snakemake` is asked for."""
        return [
            *SUMMARY,
            *(
                f"results/{experiment}/{replicate}/{file}"
                for experiment, replicate in self.replicates()
                for file in self.results(experiment, replicate)
            ),
        ]

    def all_files(self) -> list[str]:
        """Return every file that is built for it, on the way as well."""
        return [
            *self.all_results(),
            *self.data_files(),
            *(
                f"results/{experiment}/{replicate}/{file}"
                for experiment, replicate in self.replicates()
                for file in self.steps(experiment, replicate)
            ),
        ]

    def data_files(self, experiments: Sequence[str] | None = None) -> list[str]:
        """Return the files of the data sets of some experiments, by default of those in `run`."""
        names = self.params["run"] if experiments is None else experiments
        datasets = dict.fromkeys(self.experiments[name]["dataset"] for name in names)
        return [f"data/{dataset}/{split}.safetensors" for dataset in datasets for split in SPLITS]
