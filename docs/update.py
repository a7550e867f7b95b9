"""Copy the headline table and figures of `results/` into docs/headline and README.md.

    python docs/update.py

No number in the README is typed by hand: this program writes everything between the two markers.
"""

import shutil
from pathlib import Path

from blocks import replace_block

from fourfold.files.atomic import write_text
from fourfold.files.table import read_metadata, read_table
from fourfold.pipeline.params import read_params
from fourfold.report.summary import render_headline

ROOT = Path(__file__).parent.parent
SHOWN = "digits-resnet18"  # the experiment whose surfaces the README shows


def main() -> None:
    """Rewrite docs/headline and the README's block."""
    results, headline = ROOT / "results", ROOT / "docs" / "headline"
    shown = results / SHOWN / "0"
    summary = results / "summary.parquet"
    kept = read_params(ROOT / "params.yaml")["summary"]["kept"]
    surfaces = read_metadata(summary).get("surfaces")
    table = render_headline(read_table("summary", summary), kept, surfaces)
    headline.mkdir(exist_ok=True)
    shutil.copy(summary, headline)
    shutil.copy(results / "figures" / "summary.png", headline)
    shutil.copy(shown / "figures" / "surfaces.png", headline)
    block = (
        f"![Loss and accuracy over the surfaces of {SHOWN}](docs/headline/surfaces.png)\n\n"
        f"{table}\n\n"
        "![Accuracy over the surfaces of all experiments](docs/headline/summary.png)\n\n"
        f"Measured on {_versions(shown / 'tables' / 'merge.parquet')}; written by "
        "`python docs/update.py` from `results/`."
    )
    readme = ROOT / "README.md"
    write_text(readme, replace_block(readme.read_text(encoding="utf-8"), "headline", block))


def _versions(table: Path) -> str:
    made_by = read_metadata(table)
    versions = made_by["versions"]
    return (
        f"{made_by['device']} with Python {versions['python']} and torch {versions['torch']}, "
        f"threads per job: {made_by['threads']}"
    )


if __name__ == "__main__":
    main()
