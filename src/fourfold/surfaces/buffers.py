"""What lies between networks beside their parameters: kept, blended or renewed, never guessed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fourfold.errors import InputError
from fourfold.surfaces.layout import StateDict, first_names, is_equal

POLICIES = ("nearest", "interpolate", "first")

# Statistics have these names in every normalization layer of PyTorch and in most of others.
_RUNNING_STATISTICS = {
    "running_mean": "interpolate",
    "running_var": "interpolate",
    "num_batches_tracked": "nearest",
}
# Spectral norm's estimates of a weight's first singular vectors: ends of the names of both vectors
# and of the weight, in torch.nn.utils.parametrizations and in torch.nn.utils.
_SINGULAR_VECTORS = (("0._u", "0._v", "original"), ("_u", "_v", "_orig"))
_POWER_ITERATIONS = 100
RENEWED = "power iteration"


@dataclass(frozen=True)
class Buffers:
    """The tensors of some networks that are no coordinates of the space they span.

    Attributes:
        shared: name -> the tensor, equal in all networks.
        varying: name -> (networks, ...) their own ones.
        policies: name of a varying tensor -> what it is between the networks: the `nearest`
            network's, `interpolate`, the `first` network's, or a `power iteration` from there.
    """

    shared: dict[str, Tensor]
    varying: dict[str, Tensor]
    policies: dict[str, str]

    def chosen(self, names: Collection[str]) -> "Buffers":
        """Return the varying ones among `names` alone that a policy decides."""
        policies = {
            name: policy
            for name, policy in self.policies.items()
            if name in names and policy != RENEWED
        }
        return Buffers({}, {name: self.varying[name] for name in policies}, policies)

    def at(
        self,
        mixture: Float[Tensor, " networks"],
        parameters: Mapping[str, Tensor],
        tied: Mapping[str, str],
        *,
        is_network: bool,
    ) -> dict[str, Tensor]:
        """Return all of them at one point.

        Args:
            mixture: weights of the networks, summing to 1. A single one gives what it has, but for
                what is computed from the parameters.
            parameters: of the point, for what is computed from them.
            tied: alias -> name, for two names of one parameter.
            is_network: whether the parameters are those of the network that `mixture` names.
        """
        nearest, is_one = int(mixture.argmax()), int(mixture.count_nonzero()) == 1
        values = {}
        for name, every in self.varying.items():
            policy = "nearest" if is_one else self.policies[name]
            if policy == "interpolate":
                values[name] = torch.tensordot(mixture.to(every), every, dims=1)
            else:
                values[name] = every[0 if policy == "first" else nearest]
        if not is_network:
            everything = {**self.shared, **parameters, **values}
            everything |= {alias: everything[name] for alias, name in tied.items()}
            for u, policy in self.policies.items():
                if policy == RENEWED and u.endswith("_u"):
                    v, weight = f"{u[:-1]}v", everything[str(singular_weight(u, everything))]
                    values[u], values[v] = _singular_vectors(weight, values[u], values[v])
        return {**self.shared, **values}


def choose_policies(states: Sequence[StateDict], asked: Mapping[str, str] | None) -> dict[str, str]:
    """Return name -> policy of what is known to be no parameter, and of what the caller names.

    Names in `asked` may be patterns, such as `*.moving_mean`.
    """
    if not isinstance(asked, Mapping | None):
        raise InputError(
            f"buffers is {asked!r}; give a dictionary, name or pattern -> one of "
            f"{', '.join(POLICIES)}, such as {{'*.moving_mean': 'nearest'}}."
        )
    first = states[0]
    policies = {name: RENEWED for name in first if singular_weight(name, first)}
    for name in first:
        if (statistic := name.rpartition(".")[2]) in _RUNNING_STATISTICS:
            policies[name] = _RUNNING_STATISTICS[statistic]
    for pattern, policy in (asked or {}).items():
        if policy not in POLICIES:
            raise InputError(
                f"buffers[{pattern!r}] is {policy!r}; choose one of {', '.join(POLICIES)}."
            )
        names = [name for name in first if fnmatchcase(name, pattern)]
        if not names:
            raise InputError(
                f"buffers names {pattern!r}, which fits no tensor of the corners; they are "
                f"{first_names(first)}."
            )
        for name in names:
            if policy == "interpolate" and not first[name].is_floating_point():
                raise InputError(
                    f"buffers[{pattern!r}] is 'interpolate', but {name!r} is {first[name].dtype}; "
                    "choose 'nearest' or 'first'."
                )
        policies |= dict.fromkeys(names, policy)
    return policies


def check_decided(names: Collection[str], why: str) -> None:
    """Refuse buffers whose value between the networks nobody decided."""
    if names:
        raise InputError(
            f"the corners hold different values in {first_names(names)}, {why}. What they are "
            "between the corners is yours to say: pass buffers={name: 'nearest', 'interpolate' or "
            "'first'} (a name may be a pattern, '*.name') to from_corners."
        )


def differing(states: Sequence[StateDict], name: str) -> bool:
    """Return whether a tensor is not the same in all networks."""
    return not all(is_equal(states[0][name], state[name]) for state in states[1:])


def singular_weight(name: str, names: Collection[str]) -> str | None:
    """Return the weight whose singular vector `name` is, if both vectors and it are there."""
    for u, v, weight in _SINGULAR_VECTORS:
        for end in (u, v):
            stem = name.removesuffix(end)
            if stem != name and all(f"{stem}{part}" in names for part in (u, v, weight)):
                return f"{stem}{weight}"
    return None


def _singular_vectors(weight: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first singular vectors of a weight, by power iteration from `u` and `v`.

    The rows of the matrix are the one axis of the weight (the second of transposed convolutions)
    that has as many elements as `u`; of several, the one which `u` and `v` agree with best.
    """
    axes = [axis for axis, size in enumerate(weight.shape) if u.shape == (size,)]
    matrices = [weight.movedim(axis, 0).flatten(1).float() for axis in axes]
    matrices = [matrix for matrix in matrices if v.shape == matrix.shape[1:]]
    if not matrices:
        raise InputError(
            f"spectral norm has vectors of shapes {tuple(u.shape)} and {tuple(v.shape)}, which "
            f"fit no axis of its weight, {tuple(weight.shape)}."
        )
    dtype, u, v = u.dtype, u.float(), v.float()
    matrix = max(matrices, key=lambda matrix: float((u @ matrix @ v).abs()))
    for _ in range(_POWER_ITERATIONS):
        u = F.normalize(matrix @ v, dim=0)
        v = F.normalize(matrix.T @ u, dim=0)
    return u.to(dtype), v.to(dtype)
