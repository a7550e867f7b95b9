"""What jobs report of their progress, and what a run shows of itself."""

import io
import logging
import time
from types import SimpleNamespace

import pytest
import torch
import yaml
from project import EXPERIMENT, ROOT
from rich.console import Console
from rich.text import Text
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from fourfold.networks import build_model
from fourfold.pipeline import progress
from fourfold.pipeline.cost import flop_per_image
from fourfold.pipeline.display import Display, Run, duration, picture
from fourfold.pipeline.estimate import History, Job, Plan
from fourfold.pipeline.progress import Progress, last_report
from fourfold.pipeline.targets import Targets
from fourfold.pipeline.work import flop_of_image, predicted_flop
from snakemake_logger_plugin_fourfold import LogHandler

# --- what jobs report -----------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Let the clock of `Progress` stand still, until a test sets it."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now.seconds)
    return now


def test_the_display_reads_what_a_training_and_an_evaluation_report(clock, capsys, tmp_path):
    log = tmp_path / "job.log"
    assert last_report(log) is None
    training = Progress("digits-vit seed0", epochs=10)
    training.on_step(1, 1000, torch.tensor(2.0), 100)
    clock.seconds = 30.0
    training.on_step(300, 1000, torch.tensor(0.25), 30_000)
    log.write_text(capsys.readouterr().err + "digits-vit seed0: epoch 9/10, step 9")
    report = last_report(log)  # the last line isn't all there yet
    assert (report.count, report.loss, report.seconds_left) == ("epoch 3/10", 0.25, 70)
    assert report.time == pytest.approx(time.time(), abs=60)

    points = Progress("digits-vit bezier", unit="point")
    points.expect(2, work=3.0)
    points.expect(6, work=1.0)
    clock.seconds += 30.0
    points.on_item(1, 2)
    clock.seconds += 30.0
    points.on_item(2, 2)
    log.write_text(capsys.readouterr().err)
    report = last_report(log)  # half of the work is done in a minute, with a quarter of the points
    assert (report.count, report.loss, report.seconds_left) == ("point 2/8", None, 60)


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize(
    "network",
    [
        {"name": "vgg16", "width": 8},
        {"name": "resnet18", "width": 16, "stem": "3x3"},
        {"name": "vit", "patch_size": 4, "layers": 4, "heads": 4, "hidden": 64, "mlp": 128},
    ],
    ids=lambda network: network["name"],
)
def test_what_an_image_costs_is_foretold_to_a_tenth(network, size):
    model = build_model(channels=3, image_size=size, classes=10, **network)
    counted = flop_per_image(model, (3, size, size))
    assert flop_of_image(network, size) == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize("architecture", ["resnet18", "vgg16"])
def test_a_network_of_which_nothing_is_known_is_not_foretold_to_cost_less(architecture):
    network = {"name": "torchvision", "architecture": architecture}
    with torch.device("meta"):
        model = build_model(channels=3, image_size=32, classes=10, **network)
    assert flop_of_image(network, 32) >= flop_per_image(model, (3, 32, 32))


def test_the_foretold_cost_of_a_job_follows_its_settings():
    params = yaml.safe_load((ROOT / "tests" / "params.tiny.yaml").read_text())
    of = {"experiment": EXPERIMENT, "replicate": "0"}

    def flop(rule, **wildcards):
        return predicted_flop(rule, of | wildcards, Targets(params))

    def trained(epochs):
        # 6 batches of 32; 50 images of val after each epoch, all 310 for each network kept.
        return epochs * (3 * 192 + 50) + 5 * 310

    train, fit = flop("train_endpoint", run="seed0"), flop("fit_bezier_surface", surface="bezier")
    grid = flop("evaluate_grid", surface="linear")
    assert flop("plot_figures") == 0
    assert fit / train == pytest.approx(3 * 3 * 192 / trained(4))
    params["recipes"]["sgd"]["training"]["epochs"] = 8
    params["recipes"]["sgd"]["grid"].update(points=5, edge_points=0, random_points=0)
    assert flop("train_endpoint", run="seed0") / train == pytest.approx(trained(8) / trained(4))
    assert flop("fit_bezier_surface", surface="bezier") == fit
    few = flop("evaluate_grid", surface="linear")
    params["recipes"]["sgd"]["grid"]["points"] = 9
    # 100 images for BatchNorm, 160 of all splits; of four corners these once more.
    more = (81 * 260 + 4 * 160) / (25 * 260 + 4 * 160)
    assert flop("evaluate_grid", surface="linear") / few == pytest.approx(more)
    assert few < 25 / 9 * grid
    params["recipes"]["sgd"]["training"]["epochs"] = 4
    params["networks"]["resnet18-2"]["width"] *= 3
    assert flop("train_endpoint", run="seed0") == pytest.approx(9 * train)


def test_of_files_whose_number_nobody_states_more_are_foretold_the_more_are_for_val():
    params = yaml.safe_load((ROOT / "tests" / "params.tiny.yaml").read_text())
    of, digits = {"experiment": EXPERIMENT, "surface": "bezier"}, params["datasets"]["digits"]

    def flop(source, val):
        digits["source"] = {"name": source, "size": 32}
        digits["split"] = {"train_images": None, "val_images": val, "test_images": None}
        return predicted_flop("fit_bezier_surface", of, Targets(params))

    foretold = [flop("image-folder", val) for val in (5_000, 10_000, 49_990, 50_000, 80_000)]
    assert 0 < foretold[0] == flop("cifar10", 5_000)
    assert foretold == sorted(foretold)


# --- what a run shows -----------------------------------------------------------------------------

JOBS = {
    1: Job("train_endpoint", "cifar10-resnet18-cpu-of-a-long-name/0 seed0", "cifar10", flop=1e9),
    2: Job("summarize", "", "", after=frozenset({1})),
}
PLAN = Plan(JOBS, {"_cores": 2}, History((job, 90.0) for job in JOBS.values()))


@pytest.fixture
def handler(tmp_path):
    """Return the plugin as Snakemake makes it, a console in memory, and a job's log."""

    def make(quiet=(), dryrun=False):
        shown = io.StringIO()
        settings = SimpleNamespace(
            quiet=quiet, dryrun=dryrun, verbose=False, debug_dag=False, nocolor=True, stdout=dryrun,
            printshellcmds=False, show_failed_logs=False,
        )  # fmt: skip
        plugin = LoggerPluginRegistry().get_plugin("fourfold")
        made = plugin.log_handler(settings, None)
        assert isinstance(made, LogHandler)
        if not dryrun:
            options = {"jobs": made._display._jobs, "state": made._display._state}
            made._display = Display(Console(file=shown, width=80), **options)
        return made, shown

    return make


def hear(handler, message=None, level=logging.INFO, **extra):
    record = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    record.__dict__.update(extra)
    handler.emit(record)


def a_run(handler, log, *, message="lr is too large.", **quiet):
    """Let a handler hear of a run: a job that notes something, and one that fails."""
    made, shown = handler(**quiet)
    hear(made, "Building DAG of jobs...")
    hear(made, "x", fourfold_plan=PLAN)
    hear(made, "Select jobs to execute...")
    hear(made, "Execute 1 jobs...", event=LogEvent.JOB_STARTED, jobs=[1])
    hear(made, "Rule", event=LogEvent.JOB_INFO, jobid=1, log=[str(log)])
    log.write_text("note: 3 images are in train and in test\nlast line\n")
    hear(made, "Finished", event=LogEvent.JOB_FINISHED, job_id=1)
    hear(made, event=LogEvent.PROGRESS, done=1, total=2)
    hear(made, "Rule", event=LogEvent.JOB_INFO, jobid=2, log=[str(log)])
    log.write_text(f"begun\nerror: {message}\n" if message else "begun\n")
    error = {"event": LogEvent.ERROR, "exception": "RuleException"}
    hear(made, "RuleException:\nCalledProcessError in file x, line 3", logging.ERROR, **error)
    error = {"event": LogEvent.JOB_ERROR, "jobid": 2, "log": [str(log)]}
    error |= {"rule_msg": None, "indent": False}
    hear(made, "Error in rule summarize, jobid: 2", logging.ERROR, **error)
    hear(made, "x", fourfold_end=True)
    hear(made, "WorkflowError:\nAt least one job did not complete successfully.", logging.ERROR)
    made.close()
    return shown.getvalue()


def test_on_a_pipe_a_run_is_a_line_for_each_job_that_starts_ends_or_fails(handler, tmp_path):
    lines = a_run(handler, tmp_path / "log").splitlines()
    stamp = len("2000-01-01 00:00:00 ")
    job = str(JOBS[1])
    assert [line[stamp:] for line in lines] == [
        "2 jobs to do, about 3 min 0 s by what earlier runs took",
        f"start   {job}",
        f"done    {job} in 0 s",
        "note: 3 images are in train and in test",
        "start   summarize",
        "failed  summarize: lr is too large.",
        "1 job done in 0 s, 1 failed",
    ]
    for line in lines:
        time.strptime(line[: stamp - 1], "%Y-%m-%d %H:%M:%S")


def test_a_job_that_was_killed_is_shown_with_the_path_of_its_log(handler, tmp_path):
    shown = a_run(handler, tmp_path / "log", message=None)
    assert f"failed  summarize: see {tmp_path / 'log'}\n" in shown


@pytest.mark.parametrize(
    ("quiet", "lines"),
    [(("rules",), 4), (("progress",), 7), (("rules", "progress"), 2), (("all",), 2)],
)
def test_quiet_leaves_out_what_it_names_but_no_failure_and_no_note(quiet, lines, handler, tmp_path):
    shown = a_run(handler, tmp_path / "log", quiet=quiet)
    assert shown.count("failed  summarize: lr is too large.") == 1
    assert len(shown.splitlines()) == lines


def test_what_snakemake_warns_of_is_shown_and_its_chatter_is_not(handler):
    made, shown = handler()
    hear(made, "Nothing to be done (all requested files are present and up to date).")
    hear(made, "Using shell: /usr/bin/bash")
    hear(made, "LockException:\nthe folder is locked", logging.ERROR, event=LogEvent.ERROR)
    assert shown.getvalue().splitlines() == [
        "Nothing to be done (all requested files are present and up to date).",
        *("LockException:", "the folder is locked"),
    ]


def test_a_dry_run_lists_jobs_as_snakemake_does(handler, capsys):
    made, _ = handler(dryrun=True)
    hear(made, "Building DAG of jobs...")
    hear(made, "Job stats:\njob count", event=LogEvent.RUN_INFO)
    made.flush()
    assert capsys.readouterr().out == "Job stats:\njob count\n"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_picture_of_a_run_fits_its_terminal_and_has_a_row_for_each_job(width, tmp_path):
    log, now = tmp_path / "log", time.time()
    log.write_text("x: epoch 3/10, step 30/100, loss 0.5000, 900 images/s, 7200 s left\n")
    run = Run(PLAN, now)
    run.start(1, log, now)
    run.start(2, None, now)
    run.look(now + 1)
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system="standard")
    console.print(picture(run, now + 1, width))
    said, bar, *rows = Text.from_ansi(file.getvalue()).plain.splitlines()
    assert all(len(line.rstrip()) <= width - 3 for line in (said, bar, *rows))
    assert len(rows) == 2
    assert rows[0].startswith("train_endpoint")
    assert rows[0].rstrip().endswith("epoch 3/10  loss 0.5000  2 h 0 min left")
    assert rows[1].startswith("summarize")
    if width >= 80:
        assert said.startswith("0 of 2 jobs done, 2 running; 1 s so far, about 2 h 0 min left")


def test_a_cluster_job_is_queued_until_its_log_is_there_and_an_old_log_is_none(tmp_path):
    log, now = tmp_path / "log", time.time() + 1000
    log.write_text("x: point 3/10, 1.00 points/s, 7 s left\n")  # of a run long ago
    run = Run(PLAN, now)
    run.start(1, log, now)
    run.look(now + 100)
    assert run.running[1].cells(now + 100)[1:] == ("queued", "", "")
    assert run.says(now + 100, None).startswith("0 of 2 jobs done, 1 queued; ")
    log.touch()
    run.running[1].since = time.time()
    run.look(now + 200)
    assert run.running[1].cells(time.time())[1:] == ("point 3/10", "", "7 s left")


def test_times_are_for_people():
    at = [0, 59.4, 59.6, 125, 600, 3599, 3600, 86_399, 90_000, 200_000]
    assert [duration(seconds) for seconds in at] == [
        *("0 s", "59 s", "1 min 0 s", "2 min 5 s", "10 min", "1 h 0 min", "1 h 0 min"),
        *("1 d 0 h", "1 d 1 h", "2 d 8 h"),
    ]


def test_every_profile_takes_the_display():
    for profile in ("profiles/default", "workflow/profiles/slurm"):
        assert yaml.safe_load((ROOT / profile / "config.yaml").read_text())["logger"] == "fourfold"
