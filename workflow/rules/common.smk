# What the rules share: names of files, what a job takes from params.yaml, and hooks.
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

from fourfold.files.atomic import write_text
from fourfold.files.reading import file_sha256
from fourfold.pipeline.code import code_hash
from fourfold.pipeline.devices import count_gpus, lacks_bfloat16
from fourfold.pipeline.reads import BESIDE, READS
from fourfold.pipeline.run_lock import RunLock
from fourfold.pipeline.targets import FIGURES, SCALES, SPLITS, Targets, split_run

TARGETS = Targets(config)
RUN_LOCK = RunLock(Path(".snakemake") / "fourfold.lock")

# The folder of one replicate of one experiment.
REPLICATE = "results/{experiment}/{replicate}"

# Commands run in the Python that runs Snakemake, whether or not its environment is activated. The
# data folder and the device go to them here, not among their params: where files lie and where a
# network runs are no reasons to rerun anything.
_environment = f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
_environment += f"export FOURFOLD_DEVICE={config['device']}; "
if config["data_folder"] is not None:
    _environment += f"export FOURFOLD_DATA={shlex.quote(config['data_folder'])}; "
_environment = _environment.replace("{", "{{").replace("}", "}}")  # Snakemake formats the prefix
shell.prefix(f"set -euo pipefail; {_environment}")


def one_of(names):
    """Return a pattern that fits these names alone, none if there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    experiment=one_of(EXPERIMENTS),
    dataset=one_of(config["datasets"]),
    replicate=r"\d+",
    run=r"(.+-)?seed\d+",
    position=r"\d+",
    surface=one_of(config["surfaces"]),
    corners=one_of(config["corners"]),
    scale=one_of(SCALES),


# --- inputs ---------------------------------------------------------------------------------------


def of_replicate(function):
    """Return an input function: files that `function(wildcards)` names below a replicate."""
    return lambda wildcards: [
        f"{REPLICATE.format(**wildcards)}/{file}" for file in function(wildcards)
    ]


def per_surface(pattern):
    """Return an input function: a file for each surface of the experiment."""
    return of_replicate(
        lambda wildcards: [
            pattern.format(surface=surface) for surface in TARGETS.surfaces(wildcards.experiment)
        ]
    )


def of_all_surfaces(pattern):
    """Return a file of every surface of every replicate, from the top."""
    return [
        f"results/{experiment}/{replicate}/{pattern.format(surface=surface)}"
        for experiment, replicate in TARGETS.replicates()
        for surface in TARGETS.surfaces(experiment)
    ]


def job_parts(part):
    """Return an input function: the parts of a gathered table."""
    return of_replicate(
        lambda wildcards: TARGETS.job_parts(wildcards.experiment, wildcards.replicate, part)
    )


def tables_to_draw(experiment, replicate):
    """Return the tables of a replicate that its figures are drawn from."""
    names = [f"grid-{surface}" for surface in TARGETS.surfaces(experiment)]
    names += ["merge", "ensemble", "difference", "rival", "geometry", "training", "endpoints"]
    names += ["barrier", "cost"]
    return [f"results/{experiment}/{replicate}/tables/{name}.parquet" for name in names]


def drawn_tables(wildcards):
    """Return those of the job's replicate."""
    return tables_to_draw(wildcards.experiment, wildcards.replicate)


def drawn_tables_of_all(wildcards):
    """Return those of all replicates of the job's experiment."""
    replicates = range(config["replicates"])
    return [file for r in replicates for file in tables_to_draw(wildcards.experiment, r)]


corner_files = of_replicate(
    lambda wildcards: TARGETS.corner_files(
        wildcards.experiment, wildcards.replicate, wildcards.surface
    )
)


first_run = of_replicate(
    lambda wildcards: [
        TARGETS.first_run(wildcards.experiment, wildcards.replicate, wildcards.corners)
    ]
)


plane_runs = of_replicate(
    lambda wildcards: TARGETS.plane_runs(wildcards.experiment, wildcards.replicate)
)


made_from = of_replicate(
    lambda wildcards: TARGETS.networks(
        wildcards.experiment,
        wildcards.replicate,
        EXPERIMENTS[wildcards.experiment]["corners"][wildcards.corners]["to"],
    )
)


def stated_file(wildcards):
    """Return what params.yaml calls the file of a network that was trained elsewhere."""
    return config["corners"][wildcards.corners]["files"][int(wildcards.position)]


def imported_hash(wildcards):
    """Return the SHA-256 of that file; of one that is gone, of what was imported.

    The file is no input: its content counts, neither where it lies nor when it was written.
    """
    file = data_folder() / stated_file(wildcards)
    if file.is_file():
        return hash_once(file)
    from fourfold.files.tensors import read_header  # imports torch

    name = f"{wildcards.corners}-{wildcards.position}.safetensors"
    return read_header(f"{REPLICATE.format(**wildcards)}/endpoints/{name}")["file_sha256"]


@cache
def hash_once(file):
    """Return a checkpoint's SHA-256, for as many jobs and replicates as take it over."""
    return file_sha256(file, "checkpoint")


def data_folder():
    """Return the folder of relative paths; `Path.__truediv__` leaves absolute ones as they are."""
    return Path(
        config["data_folder"] or os.environ.get("FOURFOLD_DATA") or "downloads"
    ).expanduser()


def corner_sets(*kinds):
    """Return a pattern that fits the names of corner sets of some kinds."""
    return one_of(name for name, one in config["corners"].items() if one["kind"] in kinds)


def prepared_data(wildcards):
    """Return the files of the experiment's data set."""
    return TARGETS.data_files([wildcards.experiment])


# --- what jobs take from params.yaml --------------------------------------------------------------


def read(rule, wildcards):
    """Return what a job reads of its experiment, see `pipeline/reads.py`."""
    of_job = {
        key: wildcards[key] for key in ("surface", "corners", "run") if key in wildcards.keys()
    }
    return TARGETS.read(rule, wildcards.experiment, **of_job)


def settings(rule):
    """Return a params function: the sections that a job reads, as JSON.

    The text is the same whatever the order and the comments in params.yaml, so that a job reruns
    when a value that it reads has changed, and only then.
    """

    def as_json(wildcards):
        sections = read(rule, wildcards)
        sections = {name: value for name, value in sections.items() if name not in BESIDE}
        return json.dumps(sections, sort_keys=True)

    return as_json


def shape(rule):
    """Return a params function: kind and settings of the shape of the job's surface."""
    return lambda wildcards: json.dumps(read(rule, wildcards)["shape"])


def start(wildcards, input):
    """Return the argument with the corners of a fit: their files, or seeds of initial networks."""
    if input.corners:
        return f"--corners {' '.join(map(shlex.quote, input.corners))}"
    corners = EXPERIMENTS[wildcards.experiment]["surfaces"][wildcards.surface]["corners"]
    seeds = TARGETS.corner_seeds(wildcards.experiment, wildcards.replicate, corners)
    kind = EXPERIMENTS[wildcards.experiment]["corners"][corners]["kind"]
    return f"--{kind} {' '.join(map(str, seeds))}"


def fork_start(wildcards):
    """Return the arguments that say where the networks of a set part, and what follows."""
    epoch = TARGETS.fork_epoch(wildcards.experiment, wildcards.corners)
    corners = EXPERIMENTS[wildcards.experiment]["corners"][wildcards.corners]
    return f"--epoch {epoch}{' --anew' * (corners.get('then') is not None)}"


# How params.yaml defines the surfaces of each experiment in `run`, as JSON.
ALL_DESCRIBED = json.dumps({name: TARGETS.described(name) for name in config["run"]})


def arguments_file(**further):
    """Return a params function: a file with a command's inputs, by their names, and `further` arguments.

    Linux lets an argument have 128 KiB, and a whole shell command is one, that of `bash -c`. What is
    over all experiments can be longer. The file is named by what is in it: params tell of a change,
    and another run, even a dry one, leaves the file of this one as it is.
    """

    def written(wildcards, input):
        lines = []
        for name, given in [*input.items(), *further.items()]:
            values = [given] if isinstance(given, str) else given
            lines += [f"--{name.replace('_', '-')}", *values]
        text = "".join(f"{line}\n" for line in lines)
        path = Path(".snakemake") / "arguments" / hashlib.sha256(text.encode()).hexdigest()
        if not path.exists() and os.access(".snakemake", os.W_OK):  # a dry run may lack the right
            write_text(path, text)
        return str(path)

    return written


def surfaces_as_json(rule):
    """Return a params function: the experiment's surfaces, in their order."""
    return lambda wildcards: json.dumps(read(rule, wildcards)["surfaces"])


def job(wildcards):
    """Return the arguments that every command takes which belongs to a replicate."""
    return f"--experiment {wildcards.experiment} --replicate {wildcards.replicate}"


def network_job(wildcards):
    """Return those of a command that runs networks as well."""
    return f"{job(wildcards)} --data data/{EXPERIMENTS[wildcards.experiment]['dataset']}"


def experiment_threads(wildcards):
    """Return the CPU threads of the experiment's jobs.

    Commands get them as the resource `torch_threads`: Snakemake lowers `threads` to `--cores`, and
    the number decides how sums are rounded.
    """
    return EXPERIMENTS[wildcards.experiment]["threads"]


def gpus(wildcards):
    """Return 1 for jobs that run networks on a GPU, else 0.

    `--resources gpu=N` then is the number of such jobs at a time, and a cluster gives each its GPU.
    """
    return int(config["device"] == "cuda" or (config["device"] == "auto" and count_gpus() > 0))


def code(command, builds_network=False):
    """Return a params function: the hash of the code behind a command."""

    def of_job(wildcards):
        if not builds_network:
            return code_hash(command)
        return code_hash(command, EXPERIMENTS[wildcards.experiment]["network"])

    return of_job


def table_as_csv(table):
    """Return the name of a table's copy as CSV, for the report."""
    return report(
        f"{REPLICATE}/tables/csv/{table}.csv",
        caption="../report/tables.rst",
        category="{experiment}",
        subcategory="tables, replicate {replicate}",
    )


def drawn(*figures):
    """Return the outputs of a rule that draws figures of a replicate, each as PNG and as SVG."""
    png = {
        figure: report(
            f"{REPLICATE}/figures/{figure}.png",
            caption=f"../report/{figure}.rst",
            category="{experiment}",
            subcategory="figures, replicate {replicate}",
            labels={"figure": figure},
        )
        for figure in figures
    }
    return {**png, "svg": [f"{REPLICATE}/figures/{figure}.svg" for figure in figures]}


# --- what is not in params.yaml ------------------------------------------------------------------


def refuse_at(place, function, *arguments):
    """Stop with the message of what can't be read, and the place in params.yaml that names it."""
    try:
        function(*arguments)
    except InputError as error:
        stop(f"{place}: {error}")


def check_data_folder():
    """Refuse a data folder among the workflow's own files, from where stale ones are moved away."""
    for own in ("data", "results"):
        if data_folder().resolve().is_relative_to(Path(own).resolve()):
            stop(
                f"the data folder is {data_folder()}, but the workflow keeps its own files in "
                f"{own}/ and moves others away from there; name another folder, as data_folder in "
                "params.yaml or FOURFOLD_DATA."
            )


def check_outside():
    """Refuse files of the user's that are not there: a network's module, corners to import."""
    check_data_folder()
    for name in config["run"]:
        refuse_at(f"experiments.{name}", code_hash, "train_endpoint", EXPERIMENTS[name]["network"])
    for experiment, replicate in TARGETS.replicates():
        for corners, one in TARGETS.corner_sets(experiment, "files").items():
            for position, stated in enumerate(one["files"]):
                file = data_folder() / stated
                if file.is_file():
                    refuse_at(f"corners.{corners}.files", hash_once, file)
                    continue
                built = (
                    f"results/{experiment}/{replicate}/endpoints/{corners}-{position}.safetensors"
                )
                if not Path(built).exists():
                    stop(
                        f"corners.{corners}.files has {stated!r}, but there is no file at {file}; "
                        "correct the path, absolute or below the data "
                        "folder (data_folder in params.yaml, or FOURFOLD_DATA)."
                    )


if workflow.is_main_process:
    check_outside()


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


def warn_of_bfloat16():
    """Say which experiments compute in bfloat16 on a processor that has no instructions for it."""
    is_on_cpu = config["device"] == "cpu" or (config["device"] == "auto" and not count_gpus())
    if not (workflow.local_exec and is_on_cpu and lacks_bfloat16()):
        return
    slow = set()
    for job in workflow.dag.needrun_jobs():
        if job.rule.name in READS and "experiment" in job.wildcards.keys():
            parts = read(job.rule.name, job.wildcards).values()
            if any("bfloat16" == part.get("precision") for part in parts if isinstance(part, dict)):
                slow.add(job.wildcards.experiment)
    if slow:
        print(
            f"warning: {', '.join(sorted(slow))}: passes in bfloat16, for which this processor has "
            "no instructions, take about ten times as long as in float32. Write precision: float32 "
            "in params.yaml, in training, fits and grid of the recipe "
            "(docs/reference/method/reproducibility.md#precision).",
            file=sys.stderr,
        )


def hold_folder():
    """Take the folder for the whole run, and remove what killed ones left if no other is at work.

    A run that moves files away has it alone. Jobs, which are processes of their own, take nothing.
    """
    is_pruning = any(job.rule.name == "prune_results" for job in workflow.dag.needrun_jobs())
    is_alone = RUN_LOCK.take_alone()
    if is_alone:
        remove_unfinished()
    if is_pruning and not is_alone:
        stop(
            "another run is at work in this folder, whose files prune_results could move away; "
            "wait for its end, or stop it."
        )
    if not is_pruning and not RUN_LOCK.share():
        stop(
            "another run with prune_results, which moves files away, is at work in this folder; "
            "wait for its end, or stop it."
        )


def remove_unfinished():
    """Remove what killed jobs left under temporary names."""
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
    """Print the headline tables, the first part of summary.md, after a run that was to make it."""
    summary = Path("results/summary.md")
    if any(str(summary) in job.output for job in workflow.dag.jobs):
        print(summary.read_text(encoding="utf-8").partition("\n## ")[0])
