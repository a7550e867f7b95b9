"""Copy the headline table and figures of `results/` into docs/headline and README.md.

    python docs/update.py

No number in the README is typed by hand: this program writes everything between the two markers.
"""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from blocks import replace_block

from fourfold.files.atomic import write_text
from fourfold.files.table import read_table
from fourfold.report.summary import render_headline

ROOT = Path(__file__).parent.parent
SHOWN = "digits-resnet18"  # the experiment whose surfaces the README shows


def main() -> None:
    """Rewrite docs/headline and the README's block."""
    results, headline = ROOT / "results", ROOT / "docs" / "headline"
    summary = read_table("summary", results / "summary.parquet")
    kept = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["summary"]["kept"]
    table = render_headline(summary, kept)
    headline.mkdir(exist_ok=True)
    shutil.copy(results / "summary.parquet", headline)
    shutil.copy(results / "figures" / "summary.png", headline)
    shutil.copy(results / SHOWN / "0" / "figures" / "surfaces.png", headline / "surfaces.png")
    versions = _versions(results / SHOWN / "0" / "tables" / "grid-bezier.parquet")
    block = (
        f"![Loss and accuracy over three surfaces, {SHOWN}](docs/headline/surfaces.png)\n\n"
        f"{table}\n\n"
        "![Accuracy over the surfaces of all experiments](docs/headline/summary.png)\n\n"
        f"Measured on {versions}; written by `python docs/update.py` from `results/`."
    )
    readme = ROOT / "README.md"
    write_text(readme, replace_block(readme.read_text(encoding="utf-8"), "headline", block))


def _versions(path: Path) -> str:
    made_by = json.loads(pq.read_schema(path).metadata[b"fourfold"])
    versions = made_by["versions"]
    return (
        f"{made_by['device']} with Python {versions['python']} and torch {versions['torch']}, "
        f"threads per job: {made_by['threads']}"
    )


if __name__ == "__main__":
    main()
