"""Put what the benchmark programs printed into docs/benchmarks.md.

    python docs/benchmarks.py          # from the outputs kept in docs/measured/
    python docs/benchmarks.py --run    # run the programs first; let nothing else run

`data.py` needs the CIFAR-10 files (FOURFOLD_DATA), `explorer.py` Chromium. All take
about a quarter of an hour on two cores.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from publish import replace_block

from fourfold.files.atomic import write_text

ROOT = Path(__file__).parent.parent
PAGE, OUTPUTS = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "measured"
# name of the output -> arguments of `python`
RUNS = {
    "step": ["benchmarks/step.py"],
    "step-compiled": ["benchmarks/step.py", "--case", "3x3", "--compile"],
    "grid": ["benchmarks/grid.py"],
    "data": ["benchmarks/data.py"],
    "loader": ["benchmarks/loader.py"],
    "ensembles": ["benchmarks/ensembles.py", "--threads", "1"],
    "alignment": ["benchmarks/alignment.py"],
    "explorer": ["benchmarks/explorer.py"],
    "full-size": ["benchmarks/full_size.py", "--threads", "1"],
}
# Kept from machines with a GPU; `--run` leaves them alone.
ON_GPU = {
    "step-h100": ["benchmarks/step.py", "--device", "cuda"],
    "step-h200": ["benchmarks/step.py", "--device", "cuda", "--no-memory"],
    "step-h200-graph": ["benchmarks/step.py", "--device", "cuda", "--no-memory", "--cuda-graph"],
}


def build_page(text: str, outputs: Path) -> str:
    """Return docs/benchmarks.md with every output in its block."""
    for name, command in (RUNS | ON_GPU).items():
        output = (outputs / f"{name}.txt").read_text(encoding="utf-8").rstrip()
        text = replace_block(text, name, f"```console\n$ python {' '.join(command)}\n{output}\n```")
    return text


def main() -> None:
    """Run the programs if asked to, and rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", action="store_true", help="run the programs first")
    if parser.parse_args().run:
        for name, command in RUNS.items():
            print(f"running {' '.join(command)}", flush=True)
            command = [sys.executable, *command]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            write_text(OUTPUTS / f"{name}.txt", done.stdout)
    write_text(PAGE, build_page(PAGE.read_text(encoding="utf-8"), OUTPUTS))


if __name__ == "__main__":
    main()
