"""Jobs of one machine are spread over its GPUs; pretended ones, since no GPU is needed for that."""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from project import EXPERIMENT, edit, new_project, section, snakemake

from fourfold.errors import InputError
from fourfold.pipeline import devices
from fourfold.pipeline.devices import choose_device, count_gpus, lacks_bfloat16

# A process that claims one of some GPUs, prints which, and lives until it is killed.
JOB = (
    "import sys; from fourfold.pipeline.devices import claim; gpus = tuple(sys.argv[1].split()); "
    "print(gpus[claim(gpus, *map(int, sys.argv[2:]))], flush=True); sys.stdin.read()"
)


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a job."""
    started = []
    (tmp_path / "bin").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PATH": str(tmp_path / "bin")}

    def start(gpus, *asked):
        job = subprocess.Popen(
            [sys.executable, "-c", JOB, gpus, *map(str, asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(job)
        return job

    yield start
    for job in started:
        job.kill()
        job.communicate()


@pytest.fixture
def taken(start):
    """Return a function that starts jobs one after another and returns their GPUs."""
    return lambda gpus, *asked, jobs=1: [gpu_of(start(gpus, *asked)) for _ in range(jobs)]


def gpu_of(job):
    return job.stdout.readline().strip()


def test_jobs_take_the_least_used_gpu_and_share_evenly(taken):
    order = taken("a b c", jobs=7)
    assert order[:3] == ["a", "b", "c"]
    assert sorted(Counter(order).values()) == [2, 2, 3]


def test_jobs_that_start_at_once_take_different_gpus(start):
    jobs = [start("a b c") for _ in range(3)]
    assert {gpu_of(job) for job in jobs} == {"a", "b", "c"}


def test_a_job_that_is_killed_frees_its_gpu(start, tmp_path):
    jobs = [start("a b") for _ in range(4)]
    gpus = [gpu_of(job) for job in jobs]
    for job, gpu in zip(jobs, gpus, strict=True):
        if gpu == "a":
            job.kill()
            job.wait()
    assert gpu_of(start("a b")) == "a"
    assert len(list(tmp_path.glob("*/*.job"))) == 3  # no claim stays of those that are gone


def test_of_equally_used_gpus_the_one_with_most_free_memory_is_taken(taken, tmp_path):
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU-a, 100\nGPU-b, 900\nGPU-c, [N/A]'\n")
    program.chmod(0o700)
    assert taken("a b c", jobs=4) == ["b", "a", "c", "b"]


def test_a_gpu_is_the_same_whatever_number_it_has_in_a_process(taken):
    assert taken("b") == ["b"]  # with CUDA_VISIBLE_DEVICES=1, where it is number 0
    assert taken("a b") + taken("b c a") == ["a", "c"]


def test_a_gpu_that_is_asked_for_is_taken_however_used_it_is(taken):
    assert taken("a b", 1, jobs=2) == ["b", "b"]
    assert taken("a b", jobs=3)[:2] == ["a", "a"]


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """PyTorch sees two GPUs. Return the list of those that were made current."""
    current = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(devices, "claim", devices.claim.__wrapped__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda k: SimpleNamespace(uuid=f"gpu{k}")
    )
    return current


def test_a_name_says_which_device(two_gpus):
    names = ("cuda:1", "auto", "cuda:1", "cuda", "cpu")
    expected = [torch.device(name) for name in ("cuda:1", "cuda:0", "cuda:1", "cuda:0", "cpu")]
    assert [choose_device(name) for name in names] == expected
    assert two_gpus == expected[:4]


@pytest.mark.parametrize("name", ["cuda:2", "cuda:", "gpu", "cuda:-1"])
def test_a_gpu_that_is_not_there_is_refused(name, two_gpus):
    with pytest.raises(InputError, match=f"device is '{name}'"):
        choose_device(name)
    assert two_gpus == []


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 2), ("1", 1), ("0,1,2", 2), ("GPU-x", 1), ("", 0), ("-1,0", 0)]
)
def test_gpus_are_counted_as_pytorch_sees_them(visible, count, tmp_path, monkeypatch):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(devices.os, "devnull", str(tmp_path / "null"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


def test_as_many_jobs_run_at_a_time_as_suits_the_gpus_unless_one_says(tmp_path):
    project = new_project(tmp_path)
    with (project / "src/fourfold/pipeline/devices.py").open("a") as file:
        file.write("\n\ndef count_gpus():\n    return 3\n")
    with (project / "Snakefile").open("a") as file:
        file.write('\nprint("limit:", *workflow.global_resources.args, file=sys.stderr)\n')
    for options, limit in {
        (): ["gpu=6"],
        ("--resources", "gpu=1"): ["gpu=1"],
        ("--jobs", "50"): [],  # as on a cluster, which gives each job its own
    }.items():
        run = snakemake(project, "--list-rules", *options)
        assert run.returncode == 0, run.stderr
        assert re.findall(r"gpu=\d+", run.stderr[run.stderr.index("limit:") :]) == limit


@pytest.mark.parametrize(
    ("cpuinfo", "lacks"),
    [
        ("model name\t: x\nflags\t\t: fpu avx avx2 avx512f\nbugs\t: y\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512bw\n", False),
        ("flags\t\t: fpu avx2 avx_ne_convert\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),
        (None, False),
    ],
)
def test_what_computes_in_bfloat16_is_read_off_the_processors_flags(cpuinfo, lacks, tmp_path):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    assert lacks_bfloat16(path) is lacks


def test_a_run_in_bfloat16_begins_with_a_warning_where_that_is_slow(tmp_path):
    project = new_project(tmp_path)
    edit(project, lambda p: section(p, "training").update(precision="bfloat16"))
    run = snakemake(project, "--", f"results/{EXPERIMENT}/0/endpoints/seed0.safetensors")
    assert run.returncode == 0, run.stdout + run.stderr
    assert (f"warning: {EXPERIMENT}: passes in bfloat16" in run.stderr) == lacks_bfloat16()
