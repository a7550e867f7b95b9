"""Files of the repository that must agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

import fourfold
from fourfold.pipeline.cli import RULES

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_dvc_keeps_every_out_and_takes_snakemakes_records_with_the_results():
    for stage in STAGES.values():
        # DVC would delete it before the stage runs.
        assert all(list(out.values()) == [{"persist": True}] for out in stage["outs"])
        assert "-- prune_results " in stage["cmd"]  # stale files, before DVC records what is there
    outs = [path for out in STAGES["results"]["outs"] for path in out]
    assert outs == ["results", ".snakemake/metadata"]
    assert list(STAGES)[-1] == "results"


def test_dvc_sees_the_sections_of_params_that_are_read():
    sections = set(yaml.safe_load((ROOT / "params.yaml").read_text()))
    moves_nothing = {"data_folder"}  # where files lie; their content is hashed
    assert set(STAGES["results"]["params"]) == sections - moves_nothing
    assert set(STAGES["data"]["params"]) == {"datasets", "run", "experiments"}


@pytest.mark.parametrize(
    "key",
    [
        "recipes.sgd.ensembles.max_members",
        "surfaces.bezier.fit",
        "++experiments.digits-vit.grid.points",
    ],
)
def test_a_parameter_set_by_dvc_changes_that_one(key, tmp_path):
    copy, text = tmp_path / "params.yaml", (ROOT / "params.yaml").read_text()
    copy.write_text(text)
    apply_overrides(copy, [f"{key}=17"])  # what `dvc exp run -S` does
    place = expected = yaml.safe_load(text)
    *path, last = key.removeprefix("++").split(".")
    for part in path:
        place = place.setdefault(part, {})
    place[last] = 17
    assert yaml.safe_load(copy.read_text()) == expected


def test_every_command_has_its_rule_and_its_module():
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    for command in RULES:
        name = command.replace("-", "_")
        for part in (f"rule {name}:", f"-m fourfold {command} ", f'code=code("{name}"'):
            assert part in rules
        assert (ROOT / "src/fourfold/pipeline/commands" / f"{name}.py").is_file()


def test_everything_that_is_required_is_pinned_without_an_address():
    lines = (ROOT / "constraints.txt").read_text().lower().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for name in required_names():
        assert name in pins


def required_names():
    """Yield the name of everything that pyproject.toml requires, of extras too."""
    extras = PROJECT["optional-dependencies"].values()
    for requirement in [*PROJECT["dependencies"], *(name for extra in extras for name in extra)]:
        yield re.split(r"[<>=,[]", requirement)[0].lower()


def test_the_version_stands_in_one_place_and_in_the_citation():
    assert "version" in PROJECT["dynamic"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "fourfold.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", fourfold.__version__)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == fourfold.__version__


def test_a_wheel_has_every_file_beside_the_modules():
    package, patterns = ROOT / "src" / "fourfold", PYPROJECT["tool"]["setuptools"]["package-data"]
    files = {
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != ".DS_Store"
    }
    assert files == {path for pattern in patterns["fourfold"] for path in package.glob(pattern)}


def test_the_licence_of_everything_required_is_listed():
    page = (ROOT / "docs" / "licenses.md").read_text().lower().replace("_", "-")
    for name in required_names():
        assert f"\n| {name.replace('_', '-')} |" in page


def test_the_tried_versions_of_python_are_the_same_everywhere():
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    tried = [f"3.{minor}" for minor in range(int(low), int(high))]
    of_ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert of_ci["jobs"]["check"]["strategy"]["matrix"]["python"] == tried
    assert f"{tried[0]} to {tried[-1]} is needed" in (ROOT / "Makefile").read_text()


def test_actions_of_others_are_pinned_to_a_commit_and_say_its_version():
    """A tag can be moved to other code; the job that publishes may publish in our name."""
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    used = [of for path in workflows for of in re.findall(r"uses: +(.+)", path.read_text())]
    remote = [of for of in used if not of.startswith("./")]
    assert remote
    for of in remote:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", of), of


def test_public_names_are_importable():
    for name in fourfold.__all__:
        assert getattr(fourfold, name) is not None
