"""What the commands that train a network have in common: from scratch, or on from another one."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fourfold.pipeline.commands._network_job import (
    NetworkJob,
    add_network_job_arguments,
    add_state_arguments,
    training_arguments,
)
from fourfold.pipeline.commands._settings import add_paths
from fourfold.pipeline.progress import Progress
from fourfold.surfaces.checkpoint import load_checkpoint, save_checkpoint, save_trajectory
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.modules import batchnorm_layers
from fourfold.training.snapshots import Snapshots
from fourfold.training.train import train


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that trains a network."""
    add_network_job_arguments(parser)
    add_state_arguments(parser)
    add_paths(
        parser,
        checkpoint="final network to write",
        training="training table to write",
        endpoints="endpoints table to write",
    )


def run_training(
    job: NetworkJob,
    model: nn.Module,
    label: str,
    *,
    seed: int,
    stream: int,
    snapshots: Snapshots,
    before: int = 0,
    kept: Sequence[int] = (),
    trajectory: Path | None = None,
) -> None:
    """Train to the end of the run; write the network, those along it, the tables and the cost.

    Args:
        job: whose settings are those of the run.
        model: where it starts.
        label: what files and tables call it.
        seed: for tables.
        stream: seed of data order, augmentation and dropout.
        snapshots: its own; removed at the end.
        before: epochs of the run that the model has behind it.
        kept: epochs after which the network is kept, in the file `trajectory`.
        trajectory: see there; the average that `training.ema` asks for is in it as `ema`.
    """
    settings = training_arguments(job.settings["training"])
    last = settings.pop("epochs")
    settings.pop("keep")
    ema, classes = settings.pop("ema"), settings.pop("classes")
    passes = {key: settings[key] for key in ("precision", "batch_size")}
    splits = job.dataset.splits
    seen = splits["train"] if classes is None else job.dataset.of_classes("train", classes)
    averaged = None if ema is None or trajectory is None else job.build_model()
    # What the epochs so far have left, saved with every snapshot.
    snapshots.notes = {"validation": [], "endpoints": [], "evaluated": 0}

    def rows(epoch: int, checkpoint: str) -> list[dict[str, Any]]:
        snapshots.notes["evaluated"] += sum(map(len, splits.values()))
        of = {"seed": seed, "epoch": epoch, "checkpoint": checkpoint}
        return job.endpoint_rows(model, splits, passes, **of)

    def kept_file(epoch: int) -> Path:
        """Return where a network waits for the end of the run: a killed job leaves nothing else."""
        return snapshots.folder / f"epoch{epoch}.safetensors"

    def on_epoch(done: int) -> None:
        epoch, val = before + done, job.measure(model, "val", **passes)
        snapshots.notes["evaluated"] += len(splits["val"])
        snapshots.notes["validation"].append(
            {"epoch": epoch, "split": "val", "nll": val["nll"], "accuracy": val["accuracy"]}
        )
        if epoch in kept:
            save_checkpoint(model.state_dict(), kept_file(epoch))
            snapshots.notes["endpoints"] += rows(epoch, f"trajectory/{label}.safetensors")

    table = train(
        model,
        seen.images,
        seen.labels,
        **settings,
        ema=None if averaged is None else ema,
        averaged=averaged,
        epochs=last - before,
        epochs_before=before,
        seed=stream,
        augment=job.augment(),
        preprocess=job.normalize,
        snapshots=snapshots,
        on_step=Progress(f"{job.arguments.experiment} {label}", epochs=last - before).on_step,
        on_epoch=on_epoch,
    )
    made_by = job.metadata() | {"seed": seed}
    save_checkpoint(model.state_dict(), job.arguments.checkpoint, made_by | {"epoch": last})
    if trajectory is not None:
        along: dict[int | str, StateDict] = {k: load_checkpoint(kept_file(k)) for k in kept}
        if averaged is not None:
            along["ema"] = averaged.state_dict()
            snapshots.notes["evaluated"] += len(seen) if batchnorm_layers(averaged) else 0
        save_trajectory(along, trajectory, made_by)
    endpoints = rows(last, f"endpoints/{label}.safetensors")
    steps = before * (len(seen) // settings["batch_size"])
    history = [
        row | {"epoch": before + row["epoch"], "step": steps + row["step"]}
        for row in table.to_dict("records")
    ]
    by_epoch = {row["epoch"]: row for row in history}
    # Validation rows share the step, rate and clock of their epoch.
    validation = [by_epoch[row["epoch"]] | row for row in snapshots.notes["validation"]]
    of_run = sorted([*history, *validation], key=lambda row: row["epoch"])
    of_item = [{"stage": "endpoint", "item": label, **row} for row in of_run]
    job.write("training", of_item, job.arguments.training)
    job.write("endpoints", [*snapshots.notes["endpoints"], *endpoints], job.arguments.endpoints)
    job.cost.trained(history[-1]["images_seen"])
    job.cost.images_forward += snapshots.notes["evaluated"]
    job.cost.seconds_before = snapshots.seconds_before
    job.write_network_cost(label, model)
    snapshots.remove()
