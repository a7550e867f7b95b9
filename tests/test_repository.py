"""Files of the repository that must agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

import fourfold
from fourfold.files.table import read_table
from fourfold.pipeline.cli import RULES
from fourfold.report.summary import render_headline

ROOT = Path(__file__).parent.parent


def _stages():
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_every_dvc_out_persists():
    for name, stage in _stages().items():
        for out in stage["outs"]:
            (options,) = out.values()
            assert options == {"persist": True}, f"DVC would delete {out} before stage {name} runs"


def test_dvc_sees_every_section_of_params():
    sections = set(yaml.safe_load((ROOT / "params.yaml").read_text()))
    moves_nothing = {"data_folder"}  # where files lie; their content is hashed
    assert set(_stages()["results"]["params"]) == sections - moves_nothing


def test_the_data_stage_lists_every_section_that_its_rules_read():
    """Which data sets there are, and which of them `run` asks for."""
    rules = (ROOT / "workflow" / "rules" / "data.smk").read_text()
    read = set(re.findall(r'config\["(\w+)"\]', rules))
    assert read == {"datasets"}
    assert set(_stages()["data"]["params"]) == read | {"run", "experiments"}


def test_snakemakes_records_travel_with_the_results():
    outs = [path for out in _stages()["results"]["outs"] for path in out]
    assert outs == ["results", ".snakemake/metadata"]
    assert list(_stages())[-1] == "results"


def test_dvc_removes_stale_files_before_it_records_what_is_there():
    for stage in _stages().values():
        assert "-- prune_results " in stage["cmd"]


def test_params_share_by_name_and_never_by_alias():
    text = (ROOT / "params.yaml").read_text()
    assert not [event for event in yaml.parse(text) if isinstance(event, yaml.AliasEvent)]


@pytest.mark.parametrize(
    "key",
    [
        "recipes.sgd.ensembles.max_members",
        "surfaces.bezier.fit",
        "++experiments.digits-vit.grid.points",
    ],
)
def test_a_parameter_set_by_dvc_changes_that_one(key, tmp_path):
    copy = tmp_path / "params.yaml"
    expected = yaml.safe_load((ROOT / "params.yaml").read_text())
    copy.write_text((ROOT / "params.yaml").read_text())
    apply_overrides(copy, [f"{key}=17"])  # what `dvc exp run -S` does
    *path, last = key.removeprefix("++").split(".")
    place = expected
    for part in path:
        place = place.setdefault(part, {})
    place[last] = 17
    assert yaml.safe_load(copy.read_text()) == expected


def test_every_command_has_its_rule_and_its_module():
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    for command in RULES:
        name = command.replace("-", "_")
        assert f"rule {name}:" in rules
        assert f"python -m fourfold {command} " in rules
        assert f'code=code("{name}"' in rules
        assert (ROOT / "src/fourfold/pipeline/commands" / f"{name}.py").is_file()


def test_every_pin_satisfies_its_range_and_names_no_address():
    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    required = [*project["dependencies"], *(name for extra in extras for name in extra)]
    for requirement in required:
        assert re.split(r"[<>=,[]", requirement)[0].lower() in pins, requirement


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == fourfold.__version__
    assert f"version: {fourfold.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"fourfold:{fourfold.__version__}" in (ROOT / "Snakefile").read_text()


def test_public_names_are_importable():
    for name in fourfold.__all__:
        assert getattr(fourfold, name) is not None


def test_the_readme_shows_the_table_that_the_pipeline_made():
    summary = read_table("summary", ROOT / "docs" / "headline" / "summary.parquet")
    kept = yaml.safe_load((ROOT / "params.yaml").read_text())["summary"]["kept"]
    assert render_headline(summary, kept) in (ROOT / "README.md").read_text()
