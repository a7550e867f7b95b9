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
from pathlib import Path

import torch
from kill_workflow import contents

from fourfold.networks import build_model
from fourfold.pipeline.cli import main as fourfold
from fourfold.surfaces.checkpoint import save_checkpoint

NETWORK = {"name": "resnet18", "width": 4, "stem": "3x3"}
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
COMMON = {"batch_size": 32, "optimizer": SGD, "precision": "float32", "weight_decay": 5e-4}
COMMON |= {"clip_norm": None, "warmup": 0.05, "schedule": "cosine", "compile": False}
COMMON["cuda_graph"] = False
TRAINING = {**COMMON, "epochs": 8, "keep": [0.25, 0.5, 0.75, 1.0], "ema": 0.9, "classes": None}
FIT = {**COMMON, "boundary_epochs": 2, "epochs": 4, "points_per_step": 4}
FIT |= {"sampler": "latin-hypercube", "phases": None, "repeats": 2, "decay": "point", "cosine": 0.1}
SPLIT = {"by": "chance", "seed": 0, "train_images": 400, "val_images": 50, "test_images": 50}
CORNERS = [f"corner{seed}.safetensors" for seed in range(4)]


class Command:
    """A command that can be continued, and the folder where it writes."""

    def __init__(self, name: str, data: Path, out: Path) -> None:
        """Take which of the two, the folder of its inputs, and that of what it makes."""
        self.out, self.state = out, out / "state" / "state.safetensors"
        settings = {"network": NETWORK, "augment": {"shift": 1, "flip": True}}
        arguments = ["--seed", "0", "--training", str(out / "training.parquet")]
        if name == "train-endpoint":
            settings["training"] = TRAINING
            arguments += ["--name", "seed0"]
            for what in ("checkpoint", "trajectory"):
                arguments += [f"--{what}", str(out / f"{what}.safetensors")]
            arguments += ["--endpoints", str(out / "endpoints.parquet")]
        else:
            settings["fit"] = FIT
            arguments += [
                "--name",
                "bezier",
                "--shape",
                json.dumps({"kind": "square", "degree": [2, 2]}),
            ]
            arguments += ["--output", str(out / "bezier.safetensors")]
            arguments += ["--corners", *(str(data / corner) for corner in CORNERS)]
        self._command = [
            *(sys.executable, "-m", "fourfold", name, *arguments),
            *("--experiment", "e", "--replicate", "0", "--device", "cpu"),
            *("--data", str(data), "--settings", json.dumps(settings)),
            *("--cost", str(out / "cost.parquet"), "--state", str(out / "state")),
            *("--state-interval", "0.01"),
        ]

    def start(self) -> subprocess.Popen:
        """Start it, and wait until it has saved a state of its own or ended."""
        before = self.state.stat().st_mtime_ns if self.state.exists() else 0
        process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if self.state.exists() and self.state.stat().st_mtime_ns != before:
                break
            time.sleep(0.002)
        return process

    def run(self) -> float:
        """Run it to its end; return the seconds of its loop."""
        process, begin = self.start(), time.monotonic()
        if process.wait(600):
            raise SystemExit(f"{self._command} ended with {process.returncode}.")
        return time.monotonic() - begin

    def kill_after(self, seconds: float) -> bool:
        """Kill it so long after its loop began; return whether it was still running."""
        process = self.start()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        return False

    def results(self) -> dict[str, object]:
        """Return what must be equal in two runs, of each file."""
        return {
            path.name: contents(path)
            for path in self.out.glob("*.*")
            if not path.name.startswith(".unfinished-")  # of a kill; the workflow removes it
        }


def make_inputs(data: Path) -> None:
    """Write the digits and four untrained networks."""
    settings = {"source": {"name": "digits"}, "split": SPLIT}
    arguments = ["prepare-data", "--name", "digits", "--settings", json.dumps(settings)]
    if fourfold([*arguments, "--output", str(data)]):
        raise SystemExit(1)
    for seed, corner in enumerate(CORNERS):
        torch.manual_seed(seed)
        network = build_model(**NETWORK, channels=1, image_size=8, classes=10)
        save_checkpoint(network.state_dict(), data / corner)


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
        for name in ("train-endpoint", "fit-bezier-surface"):
            undisturbed = Command(name, data, Path(folder) / name / "undisturbed")
            killed = Command(name, data, Path(folder) / name / "killed")
            seconds = undisturbed.run()
            # Short stretches, so that all kills find the run unfinished; it restarts in between.
            latest = 1.5 * seconds / arguments.kills
            kills = sum(killed.kill_after(draw.uniform(0, latest)) for _ in range(arguments.kills))
            killed.run()
            expected, found = undisturbed.results(), killed.results()
            differing = [n for n in expected | found if expected.get(n) != found.get(n)]
            left = "left behind" if killed.state.exists() else "removed"
            print(
                f"{name}: loop of {seconds:.1f} s, {kills} kills, {len(expected)} files "
                f"{f'DIFFERENT: {differing}' if differing else 'equal'}, state {left}",
                flush=True,
            )
            status |= bool(differing)
    return status


if __name__ == "__main__":
    sys.exit(main())
