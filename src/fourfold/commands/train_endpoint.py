"""Train one network and keep checkpoints of it along the way."""

import argparse
import contextlib
from pathlib import Path

import torch

from fourfold.atomic import atomic_path
from fourfold.checkpoint import save_checkpoint
from fourfold.commands._job import Job, add_job_arguments
from fourfold.commands._settings import check_keys
from fourfold.errors import InputError
from fourfold.grid import predict
from fourfold.metrics import classification_metrics
from fourfold.progress import Progress
from fourfold.seeds import derive_seed
from fourfold.training import train

_SUPPLIED = ("model", "images", "labels", "seed", "augment", "preprocess", "on_step", "on_epoch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_job_arguments(parser)
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
    training_rows, endpoint_rows = [], []
    # Checkpoints get their final names together, at the end: a killed job leaves none.
    with contextlib.ExitStack() as unfinished:

        def measure(split: str) -> dict:
            images, labels = splits[split].images, splits[split].labels
            job.cost.evaluated(len(labels))
            outputs = predict(model, images, preprocess=normalize)
            return classification_metrics(outputs.log_softmax(dim=1), labels)

        def record(epoch: int, path: Path, name: str) -> None:
            """Save the network; its metrics use its own BatchNorm statistics, as they are saved."""
            sha256 = save_checkpoint(
                model.state_dict(), path, job.metadata() | {"seed": arguments.seed, "epoch": epoch}
            )
            for split in splits:
                endpoint_rows.append(
                    {"seed": arguments.seed, "epoch": epoch, "split": split}
                    | {"n": len(splits[split]), **measure(split)}
                    | {"checkpoint": name, "sha256": sha256}
                )

        def on_epoch(epoch: int) -> None:
            val = measure("val")
            training_rows.append(
                {"epoch": epoch, "split": "val", "nll": val["nll"], "accuracy": val["accuracy"]}
            )
            if epoch in checkpoint_epochs:
                name = f"{label}-epoch{epoch}.safetensors"
                path = unfinished.enter_context(atomic_path(arguments.trajectory / name))
                record(epoch, path, f"trajectory/{name}")

        rows = train(
            model,
            splits["train"].images,
            splits["train"].labels,
            **settings,
            seed=arguments.seed,
            augment=job.augment(),
            preprocess=normalize,
            on_step=Progress(f"{arguments.experiment} {label}").on_step,
            on_epoch=on_epoch,
        )
        job.cost.trained(rows[-1]["images_seen"] if rows else 0)
        record(last, arguments.checkpoint, f"endpoints/{label}.safetensors")
    by_epoch = {row["epoch"]: row for row in rows}
    for row in training_rows:  # validation rows share the step, rate and clock of their epoch
        row |= {k: v for k, v in by_epoch[row["epoch"]].items() if k not in row}
    history = sorted([*rows, *training_rows], key=lambda row: row["epoch"])
    job.write(
        "training",
        [{"stage": "endpoint", "item": label, **row} for row in history],
        arguments.training,
    )
    job.write("endpoints", endpoint_rows, arguments.endpoints)
    job.write_cost("train_endpoint", label, model)
