"""Every file that the workflow builds, once: for rules, for pruning, and for records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fourfold.pipeline.params import resolve
from fourfold.pipeline.reads import READS
from fourfold.surfaces.shapes import SQUARE, Shape, shape_of

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

# Kinds of corner sets whose networks have files of their own, by name and position.
NUMBERED = ("fork", "files")


def corner_count(corners: Mapping[str, Any]) -> int:
    """Return how many networks a corner set of params.yaml has."""
    listed = corners.get("files", corners.get("choose"))
    if isinstance(listed, list):
        return len(listed)
    chosen_on_val = len(SQUARE.corner_rows)
    return int(corners.get("count", chosen_on_val))


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

    def corner_sets(self, experiment: str, *kinds: str) -> dict[str, dict[str, Any]]:
        """Return name -> what params.yaml says of the corner sets of some kinds."""
        corners = self.experiments[experiment]["corners"]
        return {name: one for name, one in corners.items() if one["kind"] in kinds}

    def shape(self, experiment: str, surface: str | None) -> Shape:
        """Return the shape of a surface."""
        return shape_of(self.described(experiment)[str(surface)])

    def endpoints(
        self, experiment: str, replicate: int | str, numbered: Sequence[str] = NUMBERED
    ) -> list[str]:
        """Return the names of a replicate's networks: trained, continued, or imported."""
        return [
            *(f"seed{seed}" for seed in self.seeds(experiment, replicate)),
            *(
                f"{name}-{position}"
                for name, one in self.corner_sets(experiment, *numbered).items()
                for position in range(corner_count(one))
            ),
        ]

    def seeds(self, experiment: str, replicate: int | str) -> list[int]:
        """Return the seeds of a replicate's training runs from the start: as many as it needs.

        Replicates are a stride apart, so that more corners don't shift the seeds of the next one.
        """
        counts = [corner_count(one) for one in self.corner_sets(experiment, "seeds").values()]
        counts += [1 for _ in self.corner_sets(experiment, "run", "fork")]
        start = self._first_seed(replicate)
        return list(range(start, start + max(counts, default=0)))

    def corner_seeds(self, experiment: str, replicate: int | str, corners: str) -> list[int]:
        """Return a seed for each network of a corner set."""
        count = corner_count(self.experiments[experiment]["corners"][corners])
        return list(range(self._first_seed(replicate), self._first_seed(replicate) + count))

    def _first_seed(self, replicate: int | str) -> int:
        seeds: dict[str, int] = self.params["seeds"]
        return seeds["corner"] + seeds["stride"] * int(replicate)

    def fit_seed(self, replicate: int | str) -> int:
        """Return the seed of a replicate's fits, the same for all of them."""
        first: int = self.params["seeds"]["fit"]
        return first + int(replicate)

    def tables(self, experiment: str) -> list[str]:
        """Return the names of a replicate's tables."""
        return [
            *(f"grid-{surface}" for surface in self.surfaces(experiment)),
            *(f"selection-{corners}" for corners in self.corner_sets(experiment, "run")),
            *TABLES,
        ]

    def corner_files(self, experiment: str, replicate: int | str, surface: str) -> list[str]:
        """Return the files that hold the corners of a surface; of chosen ones their list first.

        There are none of free corners, which the surface's fit starts from seeds.
        """
        name = self.experiments[experiment]["surfaces"][surface]["corners"]
        corners = self.experiments[experiment]["corners"][name]
        if corners["kind"] == "free":
            return []
        if corners["kind"] == "run":
            return [f"corners/{name}.json", self.first_run(experiment, replicate)]
        names = [f"seed{seed}" for seed in self.corner_seeds(experiment, replicate, name)]
        if corners["kind"] in NUMBERED:
            names = [f"{name}-{position}" for position in range(corner_count(corners))]
        return [f"endpoints/{network}.safetensors" for network in names]

    def first_run(self, experiment: str, replicate: int | str) -> str:
        """Return the file of the networks that a replicate's first training run kept."""
        return f"trajectory/seed{self.seeds(experiment, replicate)[0]}.safetensors"

    def job_parts(self, experiment: str, replicate: int | str, part: str) -> list[str]:
        """Return the tables of single jobs that `training`, `endpoints` or `cost` is made of."""
        surfaces = self.experiments[experiment]["surfaces"]
        names = self.endpoints(experiment, replicate)
        if part == "training":
            names = self.endpoints(experiment, replicate, ["fork"])
            names += [name for name, surface in surfaces.items() if surface["fit"] is not None]
        if part == "cost":
            names += [*surfaces, *(f"{surface}-grid" for surface in surfaces)]
            names += [f"{corners}-corners" for corners in self.corner_sets(experiment, "run")]
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
            elif part == "shape":
                shape = self.shape(experiment, surface)
                read[part] = {"kind": shape.kind, **shape.settings()}
            elif part == "surfaces":
                read[part] = self.described(experiment)
            else:
                read[part] = of[part][corners] if part == "corners" else of[part]
        return read

    def described(self, experiment: str) -> dict[str, dict[str, Any]]:
        """Return surface -> what tables can't tell of it, see `baselines.Described`."""
        of, found = self.experiments[experiment], {}
        for name, surface in of["surfaces"].items():
            corners = of["corners"][surface["corners"]]
            at = {"at": corners["at"]} if corners["kind"] == "fork" else {}
            found[name] = {"kind": corners["kind"], "count": corner_count(corners)} | at | surface
        return found

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
            *(f"endpoints/{name}.safetensors" for name in self.endpoints(experiment, replicate)),
            *(f"trajectory/seed{seed}.safetensors" for seed in seeds),
            *(f"corners/{corners}.json" for corners in self.corner_sets(experiment, "run")),
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
