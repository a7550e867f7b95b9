# Target lists, and what rules take from params.yaml.
import ast
import hashlib
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

SURFACES = ["linear", "bezier", "trajectory"]
LINEAR_SURFACES = ["linear", "trajectory"]
# What evaluating a few networks takes from the section `grid`.
EVALUATION = ["batchnorm", "batchnorm_images", "seed", "batch_size", "precision"]
CORNERS_PER_SURFACE = 4
SEEDS_PER_REPLICATE = 100  # more corners in one replicate don't shift the seeds of the next
FIGURES = [
    "surfaces",
    "surfaces_3d",
    "profiles",
    "ensembles",
    "merges",
    "differences",
    "training",
    "geometry",
]
TABLES = [
    *(f"grid-{surface}" for surface in SURFACES),
    "barrier",
    "ensemble",
    "merge",
    "geometry",
    "difference",
    "selection",
    "endpoints",
    "training",
    "cost",
]
GATHERED_TABLES = ["endpoints", "training", "cost"]
SUMMARY = [
    "results/summary.parquet",
    "results/summary.csv",
    "results/summary.md",
    "results/metrics.json",
    "results/figures/summary.png",
    "results/figures/summary.svg",
]
# Names of the jobs' parts of the cost table, beside those of the training runs.
COST_ITEMS = [
    "linear",
    "bezier-fit",
    "trajectory-select",
    *(f"{surface}-grid" for surface in SURFACES),
    "ensembles",
    "merges",
    "geometry",
    "differences",
]

# The folder of one replicate of one experiment.
REPLICATE = "results/{experiment}/{replicate}"

# Commands run in the Python that runs Snakemake, whether or not its environment is activated. The
# data folder goes to them here, not among their params: where files lie is no reason to rerun
# anything, and no business of a table's metadata.
_environment = f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
if config["data_folder"] is not None:
    _environment += f"export FOURFOLD_DATA={shlex.quote(config['data_folder'])}; "
_environment = _environment.replace("{", "{{").replace("}", "}}")  # Snakemake formats the prefix
shell.prefix(f"set -euo pipefail; {_environment}")


wildcard_constraints:
    experiment="|".join(map(re.escape, EXPERIMENTS)),
    dataset="|".join(map(re.escape, config["datasets"])),
    replicate=r"\d+",
    seed=r"\d+",
    surface="|".join(SURFACES),


# --- targets --------------------------------------------------------------------------------------


def per_replicate(pattern, **values):
    """Return the files of every replicate of every experiment in `run`."""
    return expand(
        f"{REPLICATE}/{pattern}",
        experiment=config["run"],
        replicate=range(config["replicates"]),
        **values,
    )


def seeds(experiment, replicate):
    """Return the seeds of a replicate's four corners; replicates share none."""
    start = EXPERIMENTS[experiment]["seeds"]["corner"] + SEEDS_PER_REPLICATE * int(replicate)
    return range(start, start + CORNERS_PER_SURFACE)


def per_seed(pattern):
    """Return an input function: the files of a replicate's four training runs, in corner order."""
    return lambda wildcards: [
        f"{REPLICATE}/{pattern}".format(seed=seed, **wildcards) for seed in seeds(**wildcards)
    ]


def replicate_files(experiment, replicate):
    """Return every file that the jobs of a replicate build, except the record of their hashes."""
    corners = seeds(experiment, replicate)
    patterns = [
        *expand("endpoints/seed{seed}.safetensors", seed=corners),
        *expand(
            "trajectory/seed{seed}-epoch{epoch}.safetensors",
            seed=corners,
            epoch=EXPERIMENTS[experiment]["endpoint"]["checkpoints"],
        ),
        *expand("jobs/{part}-seed{seed}.parquet", part=GATHERED_TABLES, seed=corners),
        *expand("jobs/cost-{item}.parquet", item=COST_ITEMS),
        "jobs/training-bezier.parquet",
        *expand("surfaces/{surface}.safetensors", surface=SURFACES),
        *expand("logits/{surface}.safetensors", surface=SURFACES),
        *expand("examples/{surface}.safetensors", surface=SURFACES),
        *expand("tables/{table}.parquet", table=TABLES),
        *expand("tables/csv/{table}.csv", table=TABLES),
        *expand("figures/{figure}.{format}", figure=FIGURES, format=["png", "svg"]),
    ]
    folder = REPLICATE.format(experiment=experiment, replicate=replicate)
    return [f"{folder}/{pattern}" for pattern in patterns]


def first_run_checkpoints(wildcards):
    """Return the checkpoints along a replicate's first training run."""
    return expand(
        f"{REPLICATE}/trajectory/seed{seeds(**wildcards)[0]}-epoch{{epoch}}.safetensors",
        epoch=EXPERIMENTS[wildcards.experiment]["endpoint"]["checkpoints"],
        **wildcards,
    )


def prepared_data(wildcards):
    """Return the files of the experiment's data set."""
    dataset = EXPERIMENTS[wildcards.experiment]["dataset"]
    return expand("data/{dataset}/{split}.safetensors", dataset=dataset, split=SPLITS)


SPLITS = ["train", "val", "test"]


# --- what rules take from params.yaml -------------------------------------------------------------


def settings(*sections, **keys):
    """Return a params function: sections of the experiment as JSON.

    The text is the same whatever the order and the comments in params.yaml, so that a job reruns
    when a value that it reads has changed, and only then. `section=[...]` takes some keys of it.
    """

    def as_json(wildcards):
        experiment = EXPERIMENTS[wildcards.experiment]
        taken = {section: experiment[section] for section in sections}
        for section, names in keys.items():
            taken[section] = {name: experiment[section][name] for name in names}
        return json.dumps(taken, sort_keys=True)

    return as_json


def job(wildcards):
    """Return the arguments that every command which runs networks takes."""
    dataset = EXPERIMENTS[wildcards.experiment]["dataset"]
    return (
        f"--experiment {wildcards.experiment} --replicate {wildcards.replicate}"
        f" --data data/{dataset} --device {config['device']}"
    )


def experiment_threads(wildcards):
    """Return the CPU threads of the experiment's jobs."""
    return EXPERIMENTS[wildcards.experiment]["threads"]


def gpus(wildcards):
    """Return 1 for jobs that run networks on a GPU, else 0.

    `--resources gpu=N` then is the number of such jobs at a time, and a cluster gives each its GPU.
    """
    has_gpu = Path(os.devnull).with_name("nvidiactl").exists()  # importing torch takes seconds
    return int(config["device"] == "cuda" or (config["device"] == "auto" and has_gpu))


# --- code as an input -----------------------------------------------------------------------------

PACKAGE = Path(workflow.basedir) / "src" / "fourfold"


def imported_modules(path):
    """Return the files of this package that a Python file imports, wherever the import stands."""
    files = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fourfold":
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "fourfold"]
        else:
            continue
        for name in names:
            stem = PACKAGE.joinpath(*name.split(".")[1:])
            files |= {f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()}
    return files - {PACKAGE / "__init__.py"}  # it names everything and runs nothing


def code(command):
    """Return a params function: the hash of the text of a command's module and all it imports.

    Snakemake sees rules, not the modules behind a shell command. With the hash among a rule's params
    an edited module reruns what uses it, and a mere touch reruns nothing.
    """
    found, waiting = set(), {PACKAGE / "pipeline" / "commands" / f"{command}.py"}
    while waiting:
        path = waiting.pop()
        found.add(path)
        waiting |= imported_modules(path) - found
    # Networks are imported by name, so that no import statement shows which one a job uses.
    builds_networks = PACKAGE / "networks" / "__init__.py" in found

    def with_network(wildcards):
        files = set(found)
        if builds_networks:
            network = (
                PACKAGE / "networks" / f"{EXPERIMENTS[wildcards.experiment]['model']['name']}.py"
            )
            files |= {network, *imported_modules(network)}
        digest = hashlib.sha256()
        for path in sorted(files):
            digest.update(path.relative_to(PACKAGE).as_posix().encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()

    return with_network


# --- hooks ----------------------------------------------------------------------------------------


def check_writable():
    """Refuse to start a run that can't write its results; here, since reading them is fine."""
    for start in ("results", "data"):
        for folder, _, _ in os.walk(start):
            if not os.access(folder, os.W_OK | os.X_OK):
                stop(
                    f"can't write into {folder}: no permission, or a disk that is read-only; make "
                    "it writable, or run the workflow elsewhere (snakemake --directory)."
                )


def remove_unfinished():
    """Remove what killed jobs left under temporary names; the workflow's lock is held here."""
    for folder in (Path("results"), Path("data")):
        for path in folder.rglob(".unfinished-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def explain_kill(logs):
    """Print what a job that was killed could not; `logs` are Snakemake's own."""
    logs = [path for path in map(Path, logs) if path.is_file()]
    said = "".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)
    # 137 is 128 + SIGKILL, from a shell; Slurm has a word of its own.
    if re.search(r"exit status 137|Signals\.SIGKILL|OUT_OF_MEMORY", said):
        print(
            "error: a job was killed (see above for its rule), most often for lack of memory. Run "
            "fewer jobs at a time (--cores 1, --resources gpu=1) or give it more memory "
            "(docs/scaling.md), then start again: it continues where it last saved its state.",
            file=sys.stderr,
        )


def print_headline():
    """Print the headline tables, the first part of summary.md."""
    summary = Path("results/summary.md")
    if summary.is_file():
        print(summary.read_text(encoding="utf-8").partition("\n## ")[0])
