"""Metrics of classifiers from predicted log-probabilities and labels (pure functions)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fourfold.data.inputs import as_tensor, class_labels, logits_of
from fourfold.errors import InputError

# Of the outputs and the targets of a split.
Metric = Callable[[Any, Any], Any]

# Columns of a table that no metric may be named after.
_COLUMNS = {"surface", "sample", "network", "u", "v", "w", "split", "n", "nll", "accuracy", "ece"}
_COLUMNS |= {"brier", "loss", "statistics", "statistics_images"}

_SUM_TOLERANCE = 0.01  # of probabilities in half precision

ECE_BINS = 15  # equal-width bins of confidence, the usual number since Guo et al., ICML 2017


def classification_metrics(log_probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Return nll, accuracy, ece and brier of one set of predictions; all NaN if one of them is.

    Args:
        log_probabilities: (n, classes), rows of natural logarithms that sum to 1 after exp.
        labels: (n,) class indices.

    Returns:
        nll: mean negative log-likelihood over all n examples, nats per example;
        accuracy: fraction of correct top-1 predictions;
        ece: expected calibration error over 15 equal-width confidence bins, a fraction;
        brier: mean over examples of the squared distance between the predicted distribution and
        the one-hot label, from 0 to 2.

    Raises:
        InputError: if the probabilities of an example don't sum to 1.
    """
    log_probabilities = as_tensor(log_probabilities, "log_probabilities")
    labels = class_labels(labels, len(log_probabilities))
    if len(labels) == 0:
        raise InputError("metrics of 0 examples don't exist; the split is empty.")
    logits_of(log_probabilities, len(labels), int(labels.max()))
    if bool(log_probabilities.isnan().any()):
        return dict.fromkeys(("nll", "accuracy", "ece", "brier"), math.nan)
    probabilities = log_probabilities.exp()
    total = probabilities.double().sum(dim=1)
    if bool(((total - 1).abs() > _SUM_TOLERANCE).any()):
        raise InputError(
            f"probabilities of an example sum to {total[(total - 1).abs().argmax()]:.4g}, not to "
            "1: log_probabilities are no logarithms of them; of logits give "
            "logits.log_softmax(dim=1)."
        )
    nll, is_correct = per_image(log_probabilities, labels)
    correct = is_correct.double()
    # sum_k (p_k - y_k)^2 = sum_k p_k^2 - 2 p_label + 1 needs no one-hot matrix.
    brier = probabilities.square().sum(dim=1) - 2 * (-nll).exp() + 1
    return {
        "nll": nll.double().mean().item(),
        "accuracy": correct.mean().item(),
        "ece": _calibration_error(probabilities.amax(dim=1).double(), correct),
        "brier": brier.double().mean().item(),
    }


def check_metrics(metrics: Mapping[str, Metric]) -> Mapping[str, Metric]:
    """Refuse metrics that are no functions by the names of new columns."""
    if not isinstance(metrics, Mapping) or not all(map(callable, metrics.values())):
        raise InputError(
            f"metrics is {metrics!r:.80}; give name -> function of a split's outputs and targets."
        )
    if taken := sorted(_COLUMNS & metrics.keys()):
        raise InputError(f"metrics are named {taken}, which the table has already; rename them.")
    return metrics


def apply_metrics(
    metrics: Mapping[str, Metric], outputs: Any, targets: Any, split: str
) -> dict[str, float]:
    """Return name -> value of the caller's metrics on the outputs and targets of a whole split."""
    if metrics and (outputs is None or targets is None):
        raise InputError(
            f"metrics of split {split!r} need its outputs as a whole, but the model returns no "
            "tensors, or outputs or targets of its batches differ in shape; return tensors, and "
            "pad all batches alike."
        )
    values = {}
    for name, metric in metrics.items():
        value = metric(outputs, targets)
        try:
            values[name] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"metric {name!r} returned {type(value).__name__} ({error}); it must return one "
                "number."
            ) from error
    return values


def per_image(
    log_probabilities: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
) -> tuple[Float[Tensor, " images"], Bool[Tensor, " images"]]:
    """Return the nll (nats) and whether the prediction is right, for each example."""
    of_label = log_probabilities.gather(1, labels[:, None])[:, 0]
    is_number = ~log_probabilities.isnan().any(dim=1)
    return -of_label, (log_probabilities.argmax(dim=1) == labels) & is_number


def _calibration_error(
    confidence: Float[Tensor, " images"], correct: Float[Tensor, " images"]
) -> float:
    """Sum over bins of |mean confidence - accuracy| times the share of examples in the bin."""
    bins = (confidence * ECE_BINS).long().clamp(max=ECE_BINS - 1)
    gap = torch.zeros(ECE_BINS, dtype=torch.float64, device=bins.device)
    gap.index_add_(0, bins, confidence - correct)
    return (gap.abs().sum() / len(correct)).item()


def average_predictions(
    logits: Sequence[Float[Tensor, "images classes"]] | Float[Tensor, "members images classes"],
) -> Float[Tensor, "images classes"]:
    """Return the log of the mean probability of an ensemble's members, from their raw outputs."""
    stacked = torch.stack([member.float().log_softmax(dim=1) for member in logits])
    return stacked.logsumexp(dim=0) - torch.log(torch.tensor(float(len(stacked))))


def disagreement(a: Float[Tensor, "images classes"], b: Float[Tensor, "images classes"]) -> float:
    """Return the fraction of examples on which two networks predict different classes."""
    return (a.argmax(dim=1) != b.argmax(dim=1)).double().mean().item()


def mean_disagreement(
    logits: Sequence[Float[Tensor, "images classes"]] | Float[Tensor, "members images classes"],
) -> float:
    """Return the disagreement averaged over all pairs of members, 0 for a single one."""
    predicted = torch.stack([member.argmax(dim=1) for member in logits])
    members = len(predicted)
    if members < 2:
        return 0.0
    differs = sum(
        (predicted[i] != predicted[i + 1 :]).double().mean(dim=1).sum().item()
        for i in range(members - 1)
    )
    return differs / (members * (members - 1) / 2)


def best_network(
    logits: Float[Tensor, "networks images classes"], labels: Int[Tensor, " images"]
) -> int:
    """Return the index of the network with the highest accuracy; among equals the lowest nll."""

    def rank(index: int) -> tuple[float, float]:
        metrics = classification_metrics(logits[index].float().log_softmax(dim=1), labels)
        is_broken = math.isnan(metrics["nll"])
        return (math.inf, 0.0) if is_broken else (-metrics["accuracy"], metrics["nll"])

    return min(range(len(logits)), key=rank)
