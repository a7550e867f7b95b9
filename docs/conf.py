"""The site that `make docs` builds into site/; a broken link is an error."""

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx

import fourfold
from fourfold.files.table import read_table
from fourfold.report.explorer import Predictions, render_explorer

HERE = Path(__file__).parent
RESULTS, CAPTIONS = HERE / "results", HERE.parent / "workflow" / "report"

project = "fourfold"
author = "The fourfold developers"
copyright = author
version = release = fourfold.__version__
root_doc = "index"
exclude_patterns = ["measured"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
mermaid_fullscreen = False

default_role = "py:obj"  # docstrings mark code by single backticks: a link, if it is a public name
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"fourfold {version}"
html_static_path = ["_static"]
html_css_files = ["fourfold.css"]
html_copy_source = False
html_math_renderer = "mathml"
copybutton_exclude = ".linenos, .gp, .go"

# --- formulas: MathML, made here, so that a page loads nothing; an unknown command stops the build


def _formula(visitor: Any, node: nodes.math) -> None:
    visitor.body.append(latex2mathml.tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _displayed(visitor: Any, node: nodes.math_block) -> None:
    mathml = latex2mathml.tex2mathml(node.astext(), as_block=True)
    visitor.body.append(f'<div class="math">{mathml}</div>')
    raise nodes.SkipNode


# --- pages of results: every figure under the caption that the report has for it, and all tables


def _gallery() -> str:
    """Return a section for each kind of figure; one without a caption is an error."""
    kinds: dict[str, list[Path]] = {}
    for png in sorted(RESULTS.rglob("*.png")):
        svg = png.with_suffix(".svg")
        kinds.setdefault(png.stem.partition("-")[0], []).append(svg if svg.exists() else png)
    blocks = []
    for kind, figures in sorted(kinds.items()):
        caption = (CAPTIONS / f"{kind}.rst").read_text(encoding="utf-8")
        if caption.startswith("{{"):  # whose figure it is, which the heading says
            caption = caption.partition("\n")[2]
        caption = caption[0].upper() + caption[1:]
        blocks += [f"## {kind.replace('_', ' ').capitalize()}", caption]
        for figure in figures:
            name, place = figure.parent.name, figure.relative_to(HERE).as_posix()
            if figure.parent != RESULTS:
                blocks.append(f"### {name}\n\n[Tables](results/{name}/tables.md)")
            blocks.append(f"![{figure.stem}, {name}]({place})")
    return "\n\n".join(blocks)


_ADDED = {
    "gallery": _gallery,
    "results/README": lambda: "```{toctree}\n:hidden:\n:glob:\n\n*/tables\n```",
}


def _add(app: Sphinx, page: str, source: list[str]) -> None:
    if page in _ADDED:
        source[0] += f"\n{_ADDED[page]()}\n"


# --- the explorer of what is published, with the predictions that lie there

EXPLORED = ("grid", "barrier", "merge", "ensemble", "rival")


def _explore(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    found: dict[str, list[Path]] = {name: [] for name in EXPLORED}
    surfaces, packed = {}, {}
    for folder in sorted(path.parent for path in RESULTS.glob("*/environment.json")):
        of = {name: [folder / f"{name}.parquet"] for name in EXPLORED}
        of["grid"] = sorted(folder.glob("grid-*.parquet"))
        if of["grid"] and all(path.exists() for every in of.values() for path in every):
            environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
            surfaces[folder.name] = environment["surfaces"]
            for name, every in of.items():
                found[name] += every
            if (path := folder / "predictions.json").exists():
                kept = json.loads(path.read_text(encoding="utf-8"))
                key = folder.name, 0, kept["surface"]
                packed[key] = Predictions(kept["stored"], kept["said"])
    tables = {name: read_table(name, *every) for name, every in found.items()}
    page = render_explorer(tables, surfaces, {}, packed=packed)
    (Path(app.outdir) / "explorer.html").write_text(page, encoding="utf-8")


# --- docstrings, which have code in single backticks and no other markup


def _escape(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    for k, line in enumerate(lines):
        lines[k] = re.sub(r"(`[^`]*`)|(\||(?<=\()\*+)", _escaped, line)


def _escaped(match: re.Match[str]) -> str:
    return match[1] or "".join(f"\\{character}" for character in match[2])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is above."""
    app.add_html_math_renderer("mathml", (_formula, None), (_displayed, None))
    app.connect("source-read", _add)
    app.connect("build-finished", _explore)
    app.connect("autodoc-process-docstring", _escape, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
