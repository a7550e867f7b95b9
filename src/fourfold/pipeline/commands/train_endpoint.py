"""Train one network, and keep it at some points of its run."""

import argparse
from pathlib import Path
from typing import Any

import torch

from fourfold.evaluation.grid import predict
from fourfold.evaluation.logits import to_half
from fourfold.evaluation.metrics import classification_metrics
from fourfold.files.tensors import state_hash
from fourfold.pipeline.commands._network_job import (
    NetworkJob,
    add_network_job_arguments,
    add_state_arguments,
)
from fourfold.pipeline.commands._training import training_arguments
from fourfold.pipeline.progress import Progress
from fourfold.seeds import derive_seed
from fourfold.surfaces.checkpoint import load_checkpoint, save_checkpoint, save_trajectory
from fourfold.training.schedule import kept_epochs
from fourfold.training.train import train

_SUPPLIED = (
    *("model", "images", "labels", "seed", "augment", "preprocess"),
    *("snapshots", "on_step", "on_epoch"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    add_state_arguments(parser)
    parser.add_argument("--seed", required=True, type=int, help="seed of initialization and order")
    parser.add_argument("--checkpoint", required=True, type=Path, help="final network to write")
    parser.add_argument(
        "--trajectory", required=True, type=Path, help="networks along the run to write"
    )
    parser.add_argument("--training", required=True, type=Path, help="training table to write")
    parser.add_argument("--endpoints", required=True, type=Path, help="endpoints table to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the network, those along its run, and the training and endpoints tables."""
    job = NetworkJob(arguments, "network", "augment", "training")
    job.seeds = {f"seed{arguments.seed}": arguments.seed}
    given = dict(job.settings["training"])
    keep = given.pop("keep")
    settings = training_arguments("training", given, train, _SUPPLIED)
    last = settings["epochs"]
    kept = kept_epochs(last, keep)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(arguments.seed, "initialization"))
        model = job.build_model()
    splits, normalize = job.dataset.splits, job.dataset.normalize
    label = f"seed{arguments.seed}"
    snapshots = job.snapshots(seed=arguments.seed)
    # What the epochs so far have left, saved with every snapshot.
    snapshots.notes = {"validation": [], "endpoints": [], "evaluated": 0}

    def measure(split: str) -> dict[str, float]:
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

    def rows(epoch: int, file: str) -> list[dict[str, Any]]:
        """Return the network's metrics, with its own BatchNorm statistics, as it is saved."""
        sha256 = state_hash(model.state_dict())
        return [
            {"seed": arguments.seed, "epoch": epoch, "split": split}
            | {"n": len(splits[split]), **measure(split)}
            | {"checkpoint": file, "sha256": sha256}
            for split in splits
        ]

    def kept_file(epoch: int) -> Path:
        """Return where a network waits for the end of the run: a killed job leaves nothing else."""
        return snapshots.folder / f"epoch{epoch}.safetensors"

    def on_epoch(epoch: int) -> None:
        val = measure("val")
        snapshots.notes["validation"].append(
            {"epoch": epoch, "split": "val", "nll": val["nll"], "accuracy": val["accuracy"]}
        )
        if epoch in kept:
            save_checkpoint(model.state_dict(), kept_file(epoch))
            snapshots.notes["endpoints"] += rows(epoch, f"trajectory/{label}.safetensors")

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
    made_by = job.metadata() | {"seed": arguments.seed}
    save_checkpoint(model.state_dict(), arguments.checkpoint, made_by | {"epoch": last})
    along = {epoch: load_checkpoint(kept_file(epoch)) for epoch in kept}
    save_trajectory(along, arguments.trajectory, made_by)
    endpoints = [
        *snapshots.notes["endpoints"],
        *rows(last, f"endpoints/{label}.safetensors"),
    ]
    validation = snapshots.notes["validation"]
    by_epoch = {row["epoch"]: row for row in history}
    for row in validation:  # validation rows share the step, rate and clock of their epoch
        row |= {k: v for k, v in by_epoch[row["epoch"]].items() if k not in row}
    of_run = sorted([*history, *validation], key=lambda row: row["epoch"])
    job.write(
        "training",
        [{"stage": "endpoint", "item": label, **row} for row in of_run],
        arguments.training,
    )
    job.write("endpoints", endpoints, arguments.endpoints)
    job.cost.trained(history[-1]["images_seen"] if history else 0)
    job.cost.evaluated(snapshots.notes["evaluated"])
    job.cost.seconds_before = snapshots.seconds_before
    job.write_network_cost("train_endpoint", label, model)
    snapshots.remove()
