"""Every file that the workflow builds, once: for rules, for pruning, and for records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fourfold.combination.baselines import NOBODYS, UNTRAINED
from fourfold.pipeline.params import resolve
from fourfold.pipeline.reads import READS
from fourfold.surfaces.shapes import SQUARE, Shape, shape_of
from fourfold.training.schedule import kept_epochs

SPLITS = ("train", "val", "test")
FIGURES: tuple[str, ...] = ("surfaces", "surfaces_3d", "profiles", "ensembles", "merges")
FIGURES += ("differences", "rivals", "training", "geometry", "barriers")
# Tables of one replicate, beside those of each surface and of each corner set that is chosen.
TABLES: tuple[str, ...] = ("barrier", "certificate", "ensemble", "merge", "geometry", "difference")
TABLES += ("rival", "rival_difference", "pick", "endpoints", "training", "cost")
# What tables can't tell of a corner set, where it says it.
_OF_CORNERS = ("choose", "training", "then", "to", "method")
SUMMARY = (
    *(f"results/summary.{kind}" for kind in ("parquet", "csv", "md")),
    "results/metrics.json",
    "results/explorer.html",
    *(f"results/figures/summary.{kind}" for kind in ("png", "svg")),
)

# Experiments that one figure shows, data sets down and networks across: those of one scale, and
# how their names end.
DATASETS, NETWORKS = ("cifar10", "cifar100", "tiny-imagenet"), ("vgg16", "resnet18", "vit")
SCALES = {"cpu": "-cpu", "full": "", "paper": "-paper"}

# Kinds of corner sets whose networks have files of their own, by name and position; and kinds that
# are made from another set, each in one file.
NUMBERED = ("fork", "files")
DERIVED = ("aligned", "random")


def run_name(training: str | None, seed: int) -> str:
    """Return what files and tables call a training run from the start."""
    return f"seed{seed}" if training is None else f"{training}-seed{seed}"


def split_run(run: str) -> tuple[str | None, int]:
    """Return the training and the seed of a run's name."""
    training, _, seed = run.rpartition("seed")
    return training.removesuffix("-") or None, int(seed)


def corner_count(corners: Mapping[str, Any], sets: Mapping[str, Any]) -> int:
    """Return how many networks a corner set of params.yaml has; `sets` are all of them."""
    if "to" in corners:
        return corner_count(sets[corners["to"]], sets)
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
            *self.runs(experiment, replicate),
            *(
                f"{name}-{position}"
                for name, one in self.corner_sets(experiment, *numbered).items()
                for position in range(self.count(experiment, name))
            ),
        ]

    def count(self, experiment: str, corners: str) -> int:
        """Return how many networks a corner set has."""
        sets = self.experiments[experiment]["corners"]
        return corner_count(sets[corners], sets)

    def made_from(self, experiment: str, corners: str) -> list[str]:
        """Return a corner set and those that it is made from, the first of them last."""
        of, names = self.experiments[experiment]["corners"], [corners]
        while "to" in of[names[-1]]:
            names.append(of[names[-1]]["to"])
        return names

    def runs(self, experiment: str, replicate: int | str) -> list[str]:
        """Return the names of a replicate's training runs from the start: as many as it needs.

        Replicates are a stride apart, so that more corners don't shift the seeds of the next one.
        """
        counts: dict[str | None, int] = {}
        for name, one in self.corner_sets(experiment, "seeds", "run", "fork").items():
            training = one.get("training")
            needed = self.count(experiment, name) if one["kind"] == "seeds" else 1
            counts[training] = max(needed, counts.get(training, 0))
        start = self._first_seed(replicate)
        return [
            run_name(training, start + k)
            for training, count in counts.items()
            for k in range(count)
        ]

    def corner_seeds(self, experiment: str, replicate: int | str, corners: str) -> list[int]:
        """Return a seed for each network of a corner set."""
        start = self._first_seed(replicate)
        return list(range(start, start + self.count(experiment, corners)))

    def _first_seed(self, replicate: int | str) -> int:
        seeds: dict[str, int] = self.params["seeds"]
        return seeds["corner"] + seeds["stride"] * int(replicate)

    def training(self, experiment: str, name: str | None) -> dict[str, Any]:
        """Return a training of an experiment: one of its `trainings`, or `training`."""
        of = self.experiments[experiment]
        found: dict[str, Any] = of["training"] if name is None else of["trainings"][name]
        return found

    def fork_epoch(self, experiment: str, corners: str) -> int:
        """Return the epoch of the ancestor's run after which the networks of a set part."""
        of = self.experiments[experiment]["corners"][corners]
        epochs = self.training(experiment, of.get("training"))["epochs"]
        return kept_epochs(epochs, [of["at"]])[0]

    def fit_seed(self, replicate: int | str) -> int:
        """Return the seed of a replicate's fits, the same for all of them."""
        first: int = self.params["seeds"]["fit"]
        return first + int(replicate)

    def plane(self, experiment: str) -> str | None:
        """Return the surface whose first three corners span the plane that is shown, if one does.

        The first of a fit on independent or aligned networks, whose edges bend around the barriers
        that the plane shows; else the first with networks of independent runs, else the first with
        networks that were trained.
        """
        of = self.experiments[experiment]
        kinds = {
            name: of["corners"][surface["corners"]]["kind"]
            for name, surface in of["surfaces"].items()
            if self.count(experiment, surface["corners"]) >= 3
        }
        trained = [name for name, kind in kinds.items() if kind not in NOBODYS]
        if not of["grid"].get("plane_points"):
            return None

        def rank(name: str) -> tuple[bool, bool]:
            is_fitted = of["surfaces"][name]["fit"] is not None
            is_bent = is_fitted and kinds[name] in ("seeds", "aligned")
            return not is_bent, not is_bent and kinds[name] != "seeds"

        return min(trained, key=rank, default=None)

    def plane_runs(self, experiment: str, replicate: int | str) -> list[str]:
        """Return the files of what the runs behind the networks of the plane have kept."""
        of = self.experiments[experiment]
        corners = of["surfaces"][self.plane(experiment)]["corners"]
        if of["corners"][corners]["kind"] in ("run", "fork"):
            return [self.first_run(experiment, replicate, corners)]
        files = self.networks(experiment, replicate, corners)[:3]
        runs = [file.replace("endpoints/", "trajectory/") for file in files]
        return runs if of["corners"][corners]["kind"] == "seeds" else []

    def tables(self, experiment: str) -> list[str]:
        """Return the names of a replicate's tables."""
        return [
            *(f"grid-{surface}" for surface in self.surfaces(experiment)),
            *(f"selection-{corners}" for corners in self.corner_sets(experiment, "run")),
            *(["plane", "plane_path"] if self.plane(experiment) else []),
            *TABLES,
        ]

    def corner_files(self, experiment: str, replicate: int | str, surface: str) -> list[str]:
        """Return the files that hold the corners of a surface; of chosen ones their list first.

        There are none of free and of untrained ones, which the surface's fit starts from seeds.
        """
        name = self.experiments[experiment]["surfaces"][surface]["corners"]
        return self.networks(experiment, replicate, name)

    def networks(self, experiment: str, replicate: int | str, corners: str) -> list[str]:
        """Return the files that hold the networks of a corner set, see `corner_files`."""
        of = self.experiments[experiment]["corners"][corners]
        if of["kind"] in UNTRAINED:
            return []
        if of["kind"] == "run":
            return [f"corners/{corners}.json", self.first_run(experiment, replicate, corners)]
        if of["kind"] in DERIVED:
            return [f"corners/{corners}.safetensors"]
        if of["kind"] in NUMBERED:
            names = [f"{corners}-{k}" for k in range(self.count(experiment, corners))]
        else:
            seeds = self.corner_seeds(experiment, replicate, corners)
            names = [run_name(of.get("training"), seed) for seed in seeds]
        return [f"endpoints/{network}.safetensors" for network in names]

    def first_run(self, experiment: str, replicate: int | str, corners: str) -> str:
        """Return the file of the networks that the first run of a set's training kept."""
        training = self.experiments[experiment]["corners"][corners].get("training")
        run = run_name(training, self._first_seed(replicate))
        return f"trajectory/{run}.safetensors"

    def job_parts(self, experiment: str, replicate: int | str, part: str) -> list[str]:
        """Return the tables of single jobs that `training`, `endpoints` or `cost` is made of."""
        surfaces = self.experiments[experiment]["surfaces"]
        names = self.endpoints(experiment, replicate)
        if part == "training":
            names = self.endpoints(experiment, replicate, ["fork"])
            names += [name for name, surface in surfaces.items() if surface["fit"] is not None]
        if part == "cost":
            names += [*surfaces, *(f"{surface}-grid" for surface in surfaces)]
            chosen = self.corner_sets(experiment, "run", *DERIVED)
            names += [f"{corners}-corners" for corners in chosen]
            names += ["ensembles", "merges", "geometry", "differences"]
            names += ["plane"] if self.plane(experiment) else []
        return [f"jobs/{part}-{name}.parquet" for name in names]

    def trained_costs(self, experiment: str, replicate: int | str) -> list[str]:
        """Return the costs of all corners and surfaces, without those of evaluating them."""
        chosen = [f"{corners}-corners" for corners in self.corner_sets(experiment, "run")]
        names = [*self.endpoints(experiment, replicate), *self.surfaces(experiment), *chosen]
        return [f"jobs/cost-{name}.parquet" for name in names]

    def figures(self, experiment: str) -> list[str]:
        """Return the names of a replicate's figures; some are there if they have enough to show."""
        surfaces = self.experiments[experiment]["surfaces"].values()
        unfitted = [surface["shape"] for surface in surfaces if surface["fit"] is None]
        of_some = {
            "plane": self.plane(experiment) is not None,
            "careful": unfitted.count("square") > 2,
        }
        return [*FIGURES, *(name for name, is_there in of_some.items() if is_there)]

    def has_convergence(self, experiment: str) -> bool:
        """Return whether two surfaces of one shape are fitted: a figure over all replicates."""
        surfaces = self.experiments[experiment]["surfaces"].values()
        fitted = [surface["shape"] for surface in surfaces if surface["fit"] is not None]
        return len(set(fitted)) < len(fitted)

    # --- what a job reads ---

    def read(
        self,
        rule: str,
        experiment: str,
        surface: str | None = None,
        corners: str | None = None,
        run: str | None = None,
    ) -> dict[str, Any]:
        """Return what a job reads of its experiment, see `READS`.

        Args:
            rule: its name.
            experiment: name.
            surface: the job's, where it has one.
            corners: the job's corner set, where it has one.
            run: the job's training run, where it is one.
        """
        of, read = self.experiments[experiment], {}
        for part in READS[rule]:
            if isinstance(part, dict):
                for section, keys in part.items():
                    read[section] = {key: of[section][key] for key in keys}
            elif part == "training":
                read[part] = self.training(experiment, self._training_of(experiment, corners, run))
            elif part == "fit":
                read[part] = of["fits"][of["surfaces"][surface]["fit"]]
            elif part == "shape":
                shape = self.shape(experiment, surface)
                read[part] = {"kind": shape.kind, **shape.settings()}
            elif part == "surfaces":
                read[part] = self.described(experiment)
            else:
                read[part] = of[part][corners] if part == "corners" else of[part]
        if rule == "evaluate_grid" and (own := of["surfaces"][surface].get("batchnorm")):
            read["grid"]["batchnorm"] = own
        return read

    def _training_of(self, experiment: str, corners: str | None, run: str | None) -> str | None:
        """Return the name of a job's training: of a run, or of a fork's networks after it."""
        if run is not None:
            return split_run(run)[0]
        of = self.experiments[experiment]["corners"].get(corners, {})
        name: str | None = of.get("then") or of.get("training")
        return name

    def described(self, experiment: str) -> dict[str, dict[str, Any]]:
        """Return surface -> what tables can't tell of it, see `baselines.Described`."""
        of, found = self.experiments[experiment], {}
        for name, surface in of["surfaces"].items():
            corners = of["corners"][surface["corners"]]
            origin = self.made_from(experiment, surface["corners"])[-1]
            known = of["corners"][origin] | corners
            further = {key: known[key] for key in _OF_CORNERS if known.get(key) is not None}
            if isinstance(further.get("choose"), list):  # epochs, which are no choice on anything
                del further["choose"]
            if "at" in known:
                epochs = self.training(experiment, known.get("training"))["epochs"]
                further["at"] = self.fork_epoch(experiment, origin) / epochs
            if "to" in corners:
                further |= {"origin": origin, "origin_kind": of["corners"][origin]["kind"]}
            count = self.count(experiment, surface["corners"])
            found[name] = {"kind": corners["kind"], "count": count} | further | surface
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
            "soups/greedy.safetensors",
            *(f"tables/{table}.parquet" for table in self.tables(experiment)),
            *(f"tables/csv/{table}.csv" for table in self.tables(experiment)),
            *(
                f"figures/{figure}.{kind}"
                for figure in self.figures(experiment)
                for kind in ("png", "svg")
            ),
        ]

    def steps(self, experiment: str, replicate: int | str) -> list[str]:
        """Return what is built on the way there."""
        runs = self.runs(experiment, replicate)
        return [
            *(f"endpoints/{name}.safetensors" for name in self.endpoints(experiment, replicate)),
            *(f"trajectory/{run}.safetensors" for run in runs),
            *(f"corners/{corners}.json" for corners in self.corner_sets(experiment, "run")),
            *(
                f"corners/{corners}.safetensors"
                for corners in self.corner_sets(experiment, *DERIVED)
            ),
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

    def cells(self, scale: str) -> dict[str, dict[str, str]]:
        """Return data set -> network -> name of the experiment of a scale, defined or not."""
        return {
            dataset: {network: f"{dataset}-{network}{SCALES[scale]}" for network in NETWORKS}
            for dataset in DATASETS
        }

    def of_scale(self, scale: str) -> list[str]:
        """Return those of them that `run` asks for."""
        names = [name for cells in self.cells(scale).values() for name in cells.values()]
        return [name for name in names if name in self.params["run"]]

    def per_replicate(self, file: str) -> list[str]:
        """Return a file of every replicate, from the top."""
        return self._of_replicates(lambda experiment, replicate: [file])

    def all_results(self) -> list[str]:
        """Return what `snakemake` is asked for."""
        over = [f"figures/experiments-{scale}" for scale in SCALES if self.of_scale(scale)]
        compared = filter(self.has_convergence, self.params["run"])
        over += [f"{experiment}/figures/convergence" for experiment in compared]
        overviews = [f"results/{figure}.{kind}" for figure in over for kind in ("png", "svg")]
        return [*SUMMARY, *overviews, *self._of_replicates(self.results)]

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
