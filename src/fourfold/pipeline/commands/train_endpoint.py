"""Train one network and keep checkpoints of it along the way."""

import argparse
import shutil
from pathlib import Path

import torch

from fourfold.errors import InputError
from fourfold.evaluation.grid import predict
from fourfold.evaluation.logits import to_half
from fourfold.evaluation.metrics import classification_metrics
from fourfold.files.atomic import atomic_path
from fourfold.pipeline.commands._job import Job, add_job_arguments, add_state_arguments
from fourfold.pipeline.commands._settings import check_keys
from fourfold.pipeline.progress import Progress
from fourfold.seeds import derive_seed
from fourfold.surfaces.checkpoint import save_checkpoint
from fourfold.training.train import train

_SUPPLIED = (
    *("model", "images", "labels", "seed", "augment", "preprocess"),
    *("snapshots", "on_step", "on_epoch"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
    add_state_arguments(parser)
    parser.add_argument("--seed", required=True, type=int, help="seed of initialization and order")
    parser.add_argument("--checkpoint", required=True, type=Path, help="final network to write")
    parser.add_argument(
        "--trajectory", required=True, type=Path, help="folder for checkpoints along the run"
    )
    parser.add_argument("--training", required=True, type=Path, help="training table to write")
    parser.add_argument("--endpoints", required=True, type=Path, help="endpoints table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the network, its checkpoints, and the training and endpoints tables."""
    job = Job(arguments, "model", "augment", "endpoint")
    job.seeds = {f"seed{arguments.seed}": arguments.seed}
    settings = dict(job.settings["endpoint"])
    checkpoint_epochs = settings.pop("checkpoints")
    check_keys("endpoint", settings, train, _SUPPLIED)
    last = settings["epochs"]
    if not checkpoint_epochs or not all(1 <= epoch <= last for epoch in checkpoint_epochs):
        raise InputError(
            f"endpoint.checkpoints is {checkpoint_epochs}; list epochs from 1 to {last} "
            "(endpoint.epochs)."
        )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(arguments.seed, "initialization"))
        model = job.build_model()
    splits, normalize = job.dataset.splits, job.dataset.normalize
    label = f"seed{arguments.seed}"
    snapshots = job.snapshots(seed=arguments.seed)
    # What the epochs so far have left, saved with every snapshot.
    snapshots.notes = {"validation": [], "endpoints": [], "evaluated": 0}

    def measure(split: str) -> dict:
        images, labels = splits[split].images, splits[split].labels
        snapshots.notes["evaluated"] += len(labels)
        outputs = predict(
            model,
            images,
            batch_size=settings["batch_size"],
            precision=settings.get("precision", "float32"),
            preprocess=normalize,
        )
        return classification_metrics(to_half(outputs).float().log_softmax(dim=1), labels)

    def save(epoch: int, path: Path, name: str) -> list[dict]:
        """Save the network; its metrics use its own BatchNorm statistics, as they are saved."""
        sha256 = save_checkpoint(
            model.state_dict(), path, job.metadata() | {"seed": arguments.seed, "epoch": epoch}
        )
        return [
            {"seed": arguments.seed, "epoch": epoch, "split": split}
            | {"n": len(splits[split]), **measure(split)}
            | {"checkpoint": name, "sha256": sha256}
            for split in splits
        ]

    def checkpoint_name(epoch: int) -> str:
        return f"{label}-epoch{epoch}.safetensors"

    def on_epoch(epoch: int) -> None:
        val = measure("val")
        snapshots.notes["validation"].append(
            {"epoch": epoch, "split": "val", "nll": val["nll"], "accuracy": val["accuracy"]}
        )
        if epoch in checkpoint_epochs:
            name = checkpoint_name(epoch)
            rows = save(epoch, snapshots.folder / name, f"trajectory/{name}")
            snapshots.notes["endpoints"] += rows

    history = train(
        model,
        splits["train"].images,
        splits["train"].labels,
        **settings,
        seed=arguments.seed,
        augment=job.augment(),
        preprocess=normalize,
        snapshots=snapshots,
        on_step=Progress(f"{arguments.experiment} {label}").on_step,
        on_epoch=on_epoch,
    )
    endpoints = [
        *snapshots.notes["endpoints"],
        *save(last, arguments.checkpoint, f"endpoints/{label}.safetensors"),
    ]
    # Checkpoints get their final names together, at the end: a killed job leaves none.
    for epoch in checkpoint_epochs:
        with atomic_path(arguments.trajectory / checkpoint_name(epoch)) as path:
            shutil.copyfile(snapshots.folder / checkpoint_name(epoch), path)
    validation = snapshots.notes["validation"]
    by_epoch = {row["epoch"]: row for row in history}
    for row in validation:  # validation rows share the step, rate and clock of their epoch
        row |= {k: v for k, v in by_epoch[row["epoch"]].items() if k not in row}
    rows = sorted([*history, *validation], key=lambda row: row["epoch"])
    job.write(
        "training",
        [{"stage": "endpoint", "item": label, **row} for row in rows],
        arguments.training,
    )
    job.write("endpoints", endpoints, arguments.endpoints)
    job.cost.trained(history[-1]["images_seen"] if history else 0)
    job.cost.evaluated(snapshots.notes["evaluated"])
    job.cost.seconds_before = snapshots.seconds_before
    job.write_cost("train_endpoint", label, model)
    snapshots.remove()
