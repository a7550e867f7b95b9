"""Temperature scaling: predictions made less or more confident by one number, fitted on val."""

import math

import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

LARGEST = 20.0  # temperatures lie between 1 / LARGEST and LARGEST


def fit_temperature(
    log_probabilities: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
) -> float:
    """Return the T that minimizes the nll of softmax(log p / T), NaN if a prediction is.

    The nll is convex in 1 / T, so that there is one minimum, which is searched from 1 / 20 to 20.
    Where all images are classified right there is none: the nll falls with T, down to 0. T is then
    1, for that says nothing about other images.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    if bool(log_probabilities.isnan().any()):
        return math.nan
    if bool((log_probabilities.argmax(dim=1) == labels).all()):
        return 1.0
    scores = log_probabilities.double()
    of_label = scores[torch.arange(len(labels)), labels].mean().item()

    def nll(log_temperature: float) -> float:
        share = math.exp(-log_temperature)
        return (scores * share).logsumexp(dim=1).mean().item() - of_label * share

    end = math.log(LARGEST)
    found = minimize_scalar(nll, bounds=(-end, end), method="bounded", options={"xatol": 1e-4})
    return math.exp(found.x) if found.fun < nll(0.0) else 1.0


def apply_temperature(
    log_probabilities: Float[Tensor, "images classes"], temperature: float
) -> Float[Tensor, "images classes"]:
    """Return log softmax(log p / T)."""
    return (log_probabilities.double() / temperature).log_softmax(dim=1)
