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
    training_arguments,
)
from fourfold.pipeline.commands._settings import add_paths
from fourfold.pipeline.progress import Progress
from fourfold.seeds import derive_seed
from fourfold.surfaces.checkpoint import load_checkpoint, save_checkpoint, save_trajectory
from fourfold.training.schedule import kept_epochs
from fourfold.training.train import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_network_job_arguments(parser)
    add_state_arguments(parser)
    parser.add_argument("--seed", required=True, type=int, help="seed of initialization and order")
    add_paths(
        parser,
        checkpoint="final network to write",
        trajectory="networks along the run to write",
        training="training table to write",
        endpoints="endpoints table to write",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the network, those along its run, and the training and endpoints tables."""
    job, seed, label = NetworkJob(arguments), arguments.seed, f"seed{arguments.seed}"
    job.seeds = {label: seed}
    settings = training_arguments(job.settings["training"])
    last = settings["epochs"]
    kept = kept_epochs(last, settings.pop("keep"))
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "initialization"))
        model = job.build_model()
    splits, normalize = job.dataset.splits, job.dataset.normalize
    snapshots = job.snapshots(seed=seed)
    # What the epochs so far have left, saved with every snapshot.
    snapshots.notes = {"validation": [], "endpoints": [], "evaluated": 0}

    def measure(split: str) -> dict[str, float]:
        images, labels = splits[split].images, splits[split].labels
        snapshots.notes["evaluated"] += len(labels)
        outputs = predict(
            model,
            images,
            batch_size=settings["batch_size"],
            precision=settings["precision"],
            preprocess=normalize,
        )
        return classification_metrics(to_half(outputs).float().log_softmax(dim=1), labels)

    def rows(epoch: int, file: str) -> list[dict[str, Any]]:
        """Return the network's metrics, with its own BatchNorm statistics, as it is saved."""
        network = {"checkpoint": file, "sha256": state_hash(model.state_dict())}
        return [
            {"seed": seed, "epoch": epoch, "split": split, "n": len(splits[split])}
            | measure(split)
            | network
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
        seed=seed,
        augment=job.augment(),
        preprocess=normalize,
        snapshots=snapshots,
        on_step=Progress(f"{arguments.experiment} {label}").on_step,
        on_epoch=on_epoch,
    )
    made_by = job.metadata() | {"seed": seed}
    save_checkpoint(model.state_dict(), arguments.checkpoint, made_by | {"epoch": last})
    along = {epoch: load_checkpoint(kept_file(epoch)) for epoch in kept}
    save_trajectory(along, arguments.trajectory, made_by)
    endpoints = snapshots.notes["endpoints"] + rows(last, f"endpoints/{label}.safetensors")
    by_epoch = {row["epoch"]: row for row in history}
    # Validation rows share the step, rate and clock of their epoch.
    validation = [by_epoch[row["epoch"]] | row for row in snapshots.notes["validation"]]
    of_run = sorted([*history, *validation], key=lambda row: row["epoch"])
    of_item = [{"stage": "endpoint", "item": label, **row} for row in of_run]
    job.write("training", of_item, arguments.training)
    job.write("endpoints", endpoints, arguments.endpoints)
    job.cost.trained(history[-1]["images_seen"])
    job.cost.images_forward += snapshots.notes["evaluated"]
    job.cost.seconds_before = snapshots.seconds_before
    job.write_network_cost(label, model)
    snapshots.remove()
