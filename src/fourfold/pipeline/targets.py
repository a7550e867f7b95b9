"""Every file that the workflow builds, once: for rules, for pruning, and for records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fourfold.pipeline.params import resolve
from fourfold.pipeline.reads import READS

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


class Targets:
    """The files of all experiments in `run`; those of a replicate are relative to its folder.

    Attributes:
        experiments: name -> resolved experiment, of all that params.yaml defines.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        """Resolve the experiments of params.yaml, see `resolve`."""
        self.params = params
        self.experiments = resolve(params)

    # --- parts of one experiment ---

    def surfaces(self, experiment: str) -> list[str]:
        """Return the names of an experiment's surfaces, in its order."""
        return list(self.experiments[experiment]["surfaces"])

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
        corners = self.experiments[experiment]["corners"][name]
        seeds = self.seeds(experiment, replicate)
        if corners["kind"] == "run":
            return [f"corners/{name}.json", f"trajectory/seed{seeds[0]}.safetensors"]
        return [f"endpoints/seed{seed}.safetensors" for seed in seeds[: corners["count"]]]

    def job_parts(self, experiment: str, replicate: int | str, part: str) -> list[str]:
        """Return the tables of single jobs that `training`, `endpoints` or `cost` is made of."""
        names = [f"seed{seed}" for seed in self.seeds(experiment, replicate)]
        surfaces = self.experiments[experiment]["surfaces"]
        if part == "training":
            names += [name for name, surface in surfaces.items() if surface["fit"] is not None]
        if part == "cost":
            names += [*surfaces, *(f"{surface}-grid" for surface in surfaces)]
            names += [f"{corners}-corners" for corners in self.chosen_corners(experiment)]
            names += ["ensembles", "merges", "geometry", "differences"]
        return [f"jobs/{part}-{name}.parquet" for name in names]

    # --- what a job reads ---

    def read(
        self, rule: str, experiment: str, surface: str | None = None, corners: str | None = None
    ) -> dict[str, Any]:
        """Return what a job reads of its experiment, see `READS`.

        Args:
            rule: its name.
            experiment: name.
            surface: the job's, where it has one.
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
        """Return what a replicate is run for."""
        return [
            *(
                f"{kind}/{surface}.safetensors"
                for kind in ("surfaces", "logits", "examples")
                for surface in self.surfaces(experiment)
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

    def per_replicate(self, file: str) -> list[str]:
        """Return a file of every replicate, from the top."""
        return self._of_replicates(lambda experiment, replicate: [file])

    def all_results(self) -> list[str]:
        """Return what `snakemake` is asked for."""
        return [*SUMMARY, *self._of_replicates(self.results)]

    def all_files(self) -> list[str]:
        """Return every file that is built for it, on the way as well."""
        return [*self.all_results(), *self.data_files(), *self._of_replicates(self.steps)]

    def _of_replicates(self, files: Callable[[str, int], list[str]]) -> list[str]:
        return [
            f"results/{experiment}/{replicate}/{file}"
            for experiment, replicate in self.replicates()
            for file in files(experiment, replicate)
        ]

    def data_files(self, experiments: Sequence[str] | None = None) -> list[str]:
        """Return the files of the data sets of some experiments, by default of those in `run`."""
        names = self.params["run"] if experiments is None else experiments
        datasets = dict.fromkeys(self.experiments[name]["dataset"] for name in names)
        return [f"data/{dataset}/{split}.safetensors" for dataset in datasets for split in SPLITS]
