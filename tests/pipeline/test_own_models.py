"""docs/how-to/own-network.md as its reader follows it: files from its blocks, then its commands."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from project import ROOT, new_project, snakemake

import fourfold as ff
from fourfold.files.tensors import read_header

pytestmark = pytest.mark.long

PAGE = (ROOT / "docs" / "how-to" / "own-network.md").read_text()
SHELL = "sh"


def blocks():
    """Return language and text of each fenced block that a reader takes."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.M | re.S)
    return [(language, text) for language, text in found if language != "text"]


def run(project, command, **options):
    program, *arguments = shlex.split(command)
    if program == "snakemake":
        return snakemake(project, *arguments)
    programs = {"python": [sys.executable], "fourfold": [sys.executable, "-m", "fourfold"]}
    path = os.pathsep.join([str(project / "src"), str(project)])
    return subprocess.run(
        [*programs[program], *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a project where everything on the page was done, with its real params.yaml."""
    project = new_project(tmp_path_factory.mktemp("own"))
    shutil.copy(ROOT / "params.yaml", project)
    for language, text in blocks():
        if language != SHELL:
            name = re.match(r"# (\S+)\n", text)[1]
            (project / name).write_text(text)
            continue
        for command in text.splitlines():
            done = run(project, command)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return project


@pytest.fixture(scope="module")
def replicate(project):
    return project / "results" / "photos-mine" / "0"


def test_the_page_ends_in_figures_and_trains_nothing_but_the_fit(project, replicate):
    assert (replicate / "figures" / "surfaces.png").is_file()
    assert "| photos-mine | mine-bezier " in (project / "results" / "summary.md").read_text()
    cost = pd.read_parquet(replicate / "tables" / "cost.parquet")
    trained = cost[cost["images_backward"] > 0]
    assert trained[["stage", "item"]].to_numpy().tolist() == [["fit_bezier_surface", "mine-bezier"]]


def test_the_networks_are_as_good_as_they_were_and_recorded(replicate):
    endpoints = pd.read_parquet(replicate / "tables" / "endpoints.parquet")
    assert set(endpoints["split"]) == {"val", "test"}
    assert len(endpoints) == 4 * 2
    assert endpoints["accuracy"].min() > 0.8
    assert endpoints["seed"].isna().all()
    header = read_header(replicate / "endpoints" / "mine-0.safetensors")
    assert header["file"] == "nets/0.pt"
    assert len(header["file_sha256"]) == 64
    log = (replicate / "log" / "import_corners-mine-0.log").read_text()
    assert "all names began with 'model.'" in log


def planned(project, *options):
    done = snakemake(project, "--configfile", "own.yaml", "--dry-run", "--quiet", "rules", *options)
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    if "Nothing to be done" in text:
        return {}
    stats = text[text.index("Job stats:") :]
    return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", stats, flags=re.M)}


def test_an_edited_file_or_module_reruns_what_uses_it(project):
    assert planned(project) == {}
    file, module = project / "downloads" / "nets" / "2.pt", project / "my_models.py"
    before, text = file.read_bytes(), module.read_text()
    file.write_bytes((file.parent / "1.pt").read_bytes())
    os.utime(file, (0, 0))  # as `mv`, `cp -p` or `tar` leave one that is older than the results
    jobs = planned(project)
    assert jobs["import_corners"] == 1
    assert jobs["evaluate_grid"] == 2
    assert "prepare_data" not in jobs
    file.write_bytes(before)
    assert planned(project) == {}
    module.write_text(f"{text}\n# edited\n")
    jobs = planned(project)
    assert jobs["import_corners"] == 4
    assert "prepare_data" not in jobs
    module.write_text(text)


def test_where_files_lie_reruns_nothing_even_if_they_are_gone(project):
    downloads, elsewhere = project / "downloads", project / "elsewhere"
    downloads.rename(elsewhere)
    try:
        assert planned(project, "--config", "data_folder=elsewhere") == {}
        assert planned(project) == {}
    finally:
        elsewhere.rename(downloads)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("nets/3.pt", "nets/4.pt"), "corners.mine.files has 'nets/4.pt', but there is no file"),
        (("my_models:", "your_models:"), "network.builder is 'your_models:build'"),
    ],
)
def test_what_is_not_there_is_said_before_anything_runs(edit, said, project):
    file = project / "own.yaml"
    text = file.read_text()
    file.write_text(text.replace(*edit))
    # A corner that was imported is kept: name one that was not.
    built = project / "results" / "photos-mine" / "0" / "endpoints" / "mine-3.safetensors"
    moved = built.rename(built.with_suffix(".moved"))
    done = snakemake(project, "--configfile", "own.yaml", "--dry-run")
    moved.rename(built)
    file.write_text(text)
    assert done.returncode == 1
    errors = [x for x in (done.stdout + done.stderr).splitlines() if x.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]


def test_the_surface_is_shared_with_the_name_of_its_builder(project, tmp_path, monkeypatch):
    export = f"fourfold export photos-mine --surface mine-bezier --output {tmp_path / 'zoo'}"
    done = run(project, f"{export} --file params.yaml own.yaml")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "zoo" / "README.md").read_text()
    assert 'allow="my_models:build"' in card
    assert "files_sha256: {0.pt: " in card
    assert "downloads" not in card, "paths are nobody's business"
    monkeypatch.chdir(project)
    network = ff.load_network(tmp_path / "zoo", 0, 1, allow="my_models:build")
    monkeypatch.delitem(sys.modules, "my_models")
    state = ff.load_checkpoint("downloads/nets/1.pt")
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found, own = network(images), network.network
    own.load_state_dict({name.removeprefix("model."): tensor for name, tensor in state.items()})
    torch.testing.assert_close(found, own((images - 0.5) / 0.25))
