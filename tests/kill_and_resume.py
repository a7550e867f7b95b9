"""Kill a training run and a fit at random moments, continue them, compare with undisturbed runs.

    python tests/kill_and_resume.py [--kills 10] [--seed 0]

Every command is a process of its own that gets SIGKILL at a random moment of its loop and is
started again, until all kills are done; then it runs to its end. Weights must be equal bit for bit,
tables in all columns but the measured ones. Exit status 1 if they are not.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fourfold.files.table import MEASURED_COLUMNS
from fourfold.files.tensors import load_tensors, state_hash
from fourfold.pipeline.cli import main as fourfold

NETWORK = {"name": "resnet18", "width": 4, "stem": "3x3"}
SGD = {"name": "sgd", "lr": 0.1}
COMMON = {"batch_size": 32, "optimizer": SGD, "precision": "float32"}
AUGMENT = {"shift": 1, "flip": True}
SPLIT = {"by": "chance", "seed": 0, "train_images": 400, "val_images": 50, "test_images": 50}
CORNERS = range(4)


@dataclass
class Command:
    """A command that can be continued, and where it writes."""

    name: str
    settings: dict
    arguments: list[str]
    data: Path
    out: Path

    @property
    def state(self) -> Path:
        """The file from which a killed run continues."""
        return self.out / "state" / "state.safetensors"

    def start(self) -> subprocess.Popen:
        """Start the command in a process of its own."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "fourfold", self.name, *self.arguments),
                *("--experiment", "e", "--replicate", "0", "--device", "cpu"),
                *("--data", str(self.data), "--settings", json.dumps(self.settings)),
                *("--cost", str(self.out / "cost.parquet"), "--state", str(self.out / "state")),
                *("--state-interval", "0.01"),
            ],
            stderr=subprocess.DEVNULL,
        )

    def results(self) -> dict[str, object]:
        """Return hashes of all networks and surfaces, and all tables without measured columns."""
        found: dict[str, object] = {}
        for path in sorted(self.out.rglob("*")):
            name = str(path.relative_to(self.out))
            if path.name.startswith(".unfinished-"):
                continue  # of a kill while a file was written; the workflow removes it at its start
            if path.suffix == ".safetensors":
                found[name] = state_hash(load_tensors(path)[0])
            elif path.suffix == ".parquet":
                table = pd.read_parquet(path).drop(columns=list(MEASURED_COLUMNS), errors="ignore")
                found[name] = table.to_json(double_precision=15)
        return found


def train_command(data: Path, out: Path) -> Command:
    """A training run of some seconds that keeps four networks along the way."""
    training = {**COMMON, "epochs": 12, "keep": [0.25, 0.5, 0.75, 1.0]}
    arguments = ["--seed", "0", "--checkpoint", str(out / "seed0.safetensors")]
    arguments += ["--trajectory", str(out / "trajectory.safetensors")]
    arguments += ["--training", str(out / "training.parquet")]
    arguments += ["--endpoints", str(out / "endpoints.parquet")]
    settings = {"network": NETWORK, "augment": AUGMENT, "training": training}
    return Command("train-endpoint", settings, arguments, data, out)


def fit_command(data: Path, out: Path) -> Command:
    """A fit in two phases, of some seconds."""
    of_fit = {**COMMON, "boundary_epochs": 4, "epochs": 8, "points_per_step": 4}
    arguments = ["--seed", "0", "--name", "bezier", "--degree", "2", "2"]
    arguments += ["--output", str(out / "bezier.safetensors")]
    arguments += ["--training", str(out / "training.parquet"), "--corners"]
    arguments += [str(data / f"corner{seed}.safetensors") for seed in CORNERS]
    settings = {"network": NETWORK, "augment": AUGMENT, "fit": of_fit}
    return Command("fit-bezier-surface", settings, arguments, data, out)


def make_inputs(data: Path) -> None:
    """Write the digits and four untrained networks."""
    import torch

    from fourfold.networks import build_model
    from fourfold.surfaces.checkpoint import save_checkpoint

    settings = {"source": {"name": "digits"}, "split": SPLIT}
    arguments = ["prepare-data", "--name", "digits", "--settings", json.dumps(settings)]
    if fourfold([*arguments, "--output", str(data)]):
        raise SystemExit(1)
    for seed in CORNERS:
        torch.manual_seed(seed)
        network = build_model(**NETWORK, channels=1, image_size=8, classes=10)
        save_checkpoint(network.state_dict(), data / f"corner{seed}.safetensors")


def run_to_end(command: Command) -> tuple[float, float]:
    """Run a command to its end; return when its loop began and when it ended, in seconds."""
    begin, process, first_state = time.monotonic(), command.start(), None
    while process.poll() is None:
        if first_state is None and command.state.exists():
            first_state = time.monotonic() - begin
        time.sleep(0.005)
    if process.returncode or first_state is None:
        raise SystemExit(f"{command.name} ended with {process.returncode}; state {first_state}.")
    return first_state, time.monotonic() - begin


def kill_at(command: Command, seconds: float) -> bool:
    """Kill a command `seconds` after its loop (or what is left of it) began.

    Returns whether it was still running.
    """
    before = command.state.stat().st_mtime_ns if command.state.exists() else 0
    process = command.start()
    while process.poll() is None:  # until this process has saved a state of its own
        if command.state.exists() and command.state.stat().st_mtime_ns != before:
            break
        time.sleep(0.002)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def main() -> int:
    """Run everything and print what happened; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10, help="of each command (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    arguments = parser.parse_args()
    draw, status = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        make_inputs(data)
        for make_command in (train_command, fit_command):
            undisturbed = make_command(data, Path(folder) / make_command.__name__ / "undisturbed")
            killed = make_command(data, Path(folder) / make_command.__name__ / "killed")
            began, ended = run_to_end(undisturbed)
            # Short stretches, so that all kills find the run unfinished; it restarts in between.
            longest = (ended - began) / arguments.kills
            moments = [draw.uniform(0, 1.5 * longest) for _ in range(arguments.kills)]
            kills = sum(kill_at(killed, moment) for moment in moments)
            if kill_at(killed, 600):
                raise SystemExit(f"{killed.name} did not end within 600 s.")
            expected, found = undisturbed.results(), killed.results()
            equal = expected == found
            for name in sorted(expected.keys() | found.keys()):
                if expected.get(name) != found.get(name):
                    print(f"{name} differs")
            status |= not equal
            print(
                f"{killed.name}: loop of {ended - began:.1f} s, {kills} kills, "
                f"{len(undisturbed.results())} files {'equal' if equal else 'DIFFERENT'}, "
                f"state {'left behind' if killed.state.exists() else 'removed'}",
                flush=True,
            )
    return status


if __name__ == "__main__":
    sys.exit(main())
