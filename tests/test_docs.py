"""The documentation says what the code does, and its blocks run."""

import contextlib
import io
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml
from markdown_it import MarkdownIt
from project import ROOT, new_project

import fourfold
from fourfold.files.table import SCHEMAS
from fourfold.networks._torchvision import import_torchvision

DOCS = ROOT / "docs"
LIBRARY = DOCS / "guide" / "library.md"
# tests/pipeline/test_own_models.py follows it to its end.
ELSEWHERE = DOCS / "how-to" / "own-network.md"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if not path.is_relative_to(DOCS / "results")]
PAGES.append(ROOT / "README.md")
SHOWN = ("text", "console", "diff", "mermaid")
# What `<!-- dry run -->` over a block makes of its commands.
DRY = 'snakemake() { command snakemake --dry-run --quiet all "$@"; }\n'


class Block(NamedTuple):
    """A fenced block, and the comments right above it: `not run: why`, `dry run`, `python ...`."""

    language: str
    text: str
    line: int
    notes: list[str]


def blocks_of(page: Path) -> list[Block]:
    blocks: list[Block] = []
    notes: list[str] = []
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        assert token.type != "code_block", f"{page}:{token.map[0] + 1}: fence it, with a language"
        if token.type == "html_block":
            notes += re.findall(r"<!-- (.*?)\s*-->", token.content, flags=re.DOTALL)
        elif token.type == "fence":
            blocks.append(Block(token.info, token.content, token.map[0], notes))
            notes = []
        else:
            notes = []
    return blocks


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone, with nothing run."""
    project = new_project(tmp_path_factory.mktemp("project"))
    shutil.copy(ROOT / "params.yaml", project)
    (project / ".venv").symlink_to(sys.prefix)
    return project


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tables of an experiment."""
    folder = tmp_path_factory.mktemp("reader")
    tables = folder / "results" / "digits-resnet18" / "0" / "tables"
    tables.parent.mkdir(parents=True)
    tables.symlink_to(DOCS / "results" / "digits-resnet18")
    return folder


@pytest.fixture(scope="module")
def example() -> tuple[dict[str, Any], str]:
    """Run the library's example once, which other pages go on from: its names, what it prints."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        execute(LIBRARY, blocks_of(LIBRARY)[0], names)
    return names, printed.getvalue()


def execute(page: Path, block: Block, names: dict[str, Any]) -> None:
    for note in block.notes:
        if note.startswith("python\n"):
            exec(compile(note.partition("\n")[2], f"{page} (hidden)", "exec"), names)
    exec(compile("\n" * (block.line + 1) + block.text, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page, project, reader, example, monkeypatch):
    monkeypatch.chdir(reader)
    import_torchvision("models")  # where only its Python part loads, `import torchvision` does now
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = blocks_of(page)
    if page == LIBRARY:
        names |= example[0]
        blocks = blocks[1:]
    for block in blocks:
        where = f"{page}:{block.line + 1}"
        name = re.match(r"# (\S+\.\w+)\n", block.text)
        if any(re.match(r"not run: \S", note) for note in block.notes) or page == ELSEWHERE:
            continue
        if "continues guide/library.md" in block.notes:
            names |= example[0]
        if name:
            (project / name[1]).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            execute(page, block, names)
        elif block.language == "sh":
            run_shell(where, block, project)
        elif block.language == "yaml":
            assert yaml.safe_load(block.text), where
        else:
            assert block.language in SHOWN or block.language.startswith("{"), where


def run_shell(where: str, block: Block, project: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", (DRY if "dry run" in block.notes else "") + block.text],
        cwd=project,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(project / "src"), "PS1": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{where}\n{done.stdout}{done.stderr}"


def test_in_the_librarys_example_fitting_raises_the_worst_accuracy(example) -> None:
    pattern = r"^(\w+): test accuracy min (\S+), mean (\S+)$"
    found = re.findall(pattern, example[1], flags=re.MULTILINE)
    accuracy = {name: (float(lowest), float(mean)) for name, lowest, mean in found}
    assert accuracy.keys() == {"linear", "bezier"}, example[1]
    assert accuracy["bezier"] > accuracy["linear"]
    (shown,) = (block.text for block in blocks_of(LIBRARY) if re.search(pattern, block.text, re.M))
    printed, stated = (
        [float(number) for number in re.findall(r"\d\.\d{3}", text)] for text in (example[1], shown)
    )
    assert printed == pytest.approx(stated, abs=0.02)  # rounding differs between machines
    corners = re.findall(r"^its corners: (\S+), as trained (\S+)$", example[1], flags=re.MULTILINE)
    assert len(corners) == len(accuracy)
    assert all(abs(float(again) - float(own)) < 0.01 for again, own in corners)


def test_every_table_and_every_column_is_documented() -> None:
    page = (DOCS / "reference" / "tables.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert sections.keys() == {"Shared columns", *SCHEMAS, "Tensor files"}
    for name, schema in SCHEMAS.items():
        cells = re.findall(r"^\| (.*?) \|", sections[name], flags=re.MULTILINE)
        documented = set(re.findall(r"`(\w+)`", " ".join(cells))) | {"experiment", "replicate"}
        assert set(schema.names) <= documented, name


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\.\. auto\w+:: (\w+)$", page, flags=re.MULTILINE)
    assert sorted(shown) == sorted(fourfold.__all__)


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    for before, token in itertools.pairwise(tokens):
        if before.type == "heading_open":
            text = "".join(child.content for child in token.children)
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(next(s for s in numbered(slug) if s not in found))
    return found


def numbered(slug: str) -> Iterator[str]:
    yield slug
    yield from (f"{slug}-{k}" for k in itertools.count(1))


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.stem
)
def test_every_link_leads_somewhere(page: Path) -> None:
    tokens = MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
    inline = [child for token in tokens for child in token.children or []]
    targets = [child.attrs.get("href") or child.attrs.get("src") for child in inline]
    for target in filter(None, targets):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:  # outside: without a network only its form
            assert parts.scheme == "https", target
            assert re.fullmatch(r"[\w\-]+(\.[\w\-]+)+", parts.netloc), target
            continue
        file = page.parent / parts.path if parts.path else page
        assert file.exists(), f"{page}: {target}"
        assert not parts.fragment or parts.fragment in slugs(file), f"{page}: {target}"
