"""REPAIR: what the layers of a network put out, reset to a mixture of what those of others do."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from fourfold.data.batches import Preprocess, as_input, call_model
from fourfold.data.inputs import copied, join_inputs
from fourfold.errors import InputError
from fourfold.evaluation.batchnorm import StatisticsImages
from fourfold.evaluation.precision import compute_precision
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.modules import evaluation_mode, load_state

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (nn.Linear, nn.MultiheadAttention, *_CONVOLUTIONS)
_ATTENDED = ("query", "key", "value")
_CONSTANT = 1e-7  # standard deviation below which a channel is only shifted


@dataclass(frozen=True)
class Mixtures:
    """Where some networks lie between others.

    Attributes:
        corners: state dicts, taken once.
        shares: of the corners in the mixture that each network is held against.
    """

    corners: Iterable[StateDict]
    shares: Float[Tensor, "networks corners"]


class _Output(NamedTuple):
    """What makes a layer's output, and mean and standard deviation of each of its channels."""

    layer: str
    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor


class _Used(TorchFunctionMode):
    """Notes which tensors functions are given."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: set[int] = set()

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = tree_leaves((args, kwargs or {}))
        self.tensors |= {id(one) for one in given if isinstance(one, nn.Parameter)}
        return function(*args, **(kwargs or {}))


class Repair:
    """Resets the statistics of the layers of networks that lie between corners.

    Mean and standard deviation of each channel of a layer's output, over the statistics images and
    places, become sum_k s_k mean_k and sum_k s_k std_k of the corners k with their shares s_k. The
    layers are corrected in the order of the forward pass, each measured after all before it, and
    the correction goes into weight and bias. The result is a plain network, at a corner itself.

    Corrected are the outputs of linear layers and convolutions; in attention those of the
    projections to queries, keys and values, and of the one that follows. The last layer, which
    gives the logits, stays as it is.

    Reference: Jordan et al., "REPAIR: REnormalizing Permuted Activations for Interpolation Repair",
    ICLR 2023, where BatchNorm layers do it; a network that has its own is re-estimated.
    """

    def __init__(
        self,
        model: nn.Module,
        corners: Iterable[StateDict],
        images: StatisticsImages,
        preprocess: Preprocess | None,
    ) -> None:
        """Measure the corners, each loaded into `model`, on all images in one batch, in float32.

        Raises:
            InputError: if a layer but the last is passed twice, has no weight and bias of its own,
                or attends to something else than its queries; or if weights of one are used without
                calling it.
        """
        prepare = as_input(preprocess or images.preprocess, model)
        self._model, self._device = model, images.device
        self._inputs = prepare(join_inputs(list(images)))
        self._corners: list[dict[str, _Output]] = []
        for corner in corners:
            load_state(model, corner)
            found: list[_Output] = []
            with _Used() as used:
                self._pass(found.append)
            self._check(found, used.tensors)
            self._corners.append({output.layer: output for output in found[:-1]})

    def _check(self, found: list[_Output], used: set[int]) -> None:
        if len(found) < 2:
            raise InputError(
                "batchnorm is 'repaired', but before its last layer the model has no linear layer, "
                "convolution or attention of torch.nn; choose 'none'."
            )
        passes = Counter(output.layer for output in found)
        uses = Counter(map(id, dict(self._model.named_parameters(remove_duplicate=False)).values()))
        for output in found[:-1]:
            if passes[output.layer] > 1:
                raise _refusal(output.layer, "is passed twice")
            if uses[id(output.weight)] != 1 or uses[id(output.bias)] != 1:
                raise _refusal(output.layer, "has no weight and bias of its own")
        layers = {name: of for name, of in self._model.named_modules() if isinstance(of, _LAYERS)}
        for name, layer in layers.items():
            is_inner = isinstance(layers.get(name.rpartition(".")[0]), nn.MultiheadAttention)
            if not passes[name] and not is_inner and id(layer.weight) in used:
                raise _refusal(name, "is used without being called")

    def __call__(self, shares: Float[Tensor, " corners"]) -> None:
        """Correct the network that is loaded into the model, in place.

        Raises:
            InputError: if a share is negative, or a layer's output is another one than its weight
                and bias say.
        """
        if shares.min() < -_CONSTANT:
            raise InputError(
                "batchnorm is 'repaired', but a point lies outside its corners, where a standard "
                "deviation may be negative; choose 'none', or points between the corners (of a "
                "plane those inside its triangle)."
            )

        def correct(output: _Output) -> _Output | None:
            if any(output.layer not in corner for corner in self._corners):
                return None
            corners = [corner[output.layer] for corner in self._corners]
            mean, std = (
                shares.to(output.mean) @ torch.stack([getattr(of, what) for of in corners])
                for what in ("mean", "std")
            )
            scale = torch.where(output.std > _CONSTANT, std / output.std, 1.0)
            weight, bias = output.weight, output.bias
            weight.copy_(weight.double() * scale.view(-1, *[1] * (weight.ndim - 1)))
            bias.copy_(bias.double() * scale + (mean - scale * output.mean))
            return output._replace(
                mean=mean, std=torch.where(output.std > _CONSTANT, std, output.std)
            )

        self._pass(correct)

    @torch.no_grad()
    def _pass(self, visit: Callable[[_Output], _Output | None]) -> None:
        """Pass the images; a layer that `visit` changes, so that it puts out that, again."""

        def project(name: str, layer: nn.Module, given: tuple[Any, ...], named: Any) -> None:
            assert isinstance(layer, nn.MultiheadAttention)
            query, key, value = [*given, *(named[k] for k in _ATTENDED if k in named)][:3]
            if not query is key is value:
                raise _refusal(name, "attends to something else than its queries")
            values = F.linear(query, layer.in_proj_weight, layer.in_proj_bias)
            visit(_output(f"{name}.in_proj", layer, values, "in_proj_"))

        def again(
            name: str, layer: nn.Module, given: tuple[Any, ...], named: Any, output: Any
        ) -> Any:
            def measured(output: Any) -> _Output:
                owner, values = layer, output
                if isinstance(layer, nn.MultiheadAttention):
                    owner, values = layer.out_proj, output[0]
                elif isinstance(layer, _CONVOLUTIONS):
                    values = output.movedim(-1 - len(layer.kernel_size), -1)
                return _output(name, owner, values)

            wanted = visit(measured(output))
            if wanted is None:
                return output
            output = layer.forward(*given, **named)
            if not _is_reached(measured(output), wanted):
                raise _refusal(name, "puts out something else than its weight and bias say")
            return output

        hooks = []
        for name, layer in self._model.named_modules():
            if isinstance(layer, nn.MultiheadAttention):
                hook = partial(project, name)
                hooks.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
            if isinstance(layer, _LAYERS):
                hooks.append(layer.register_forward_hook(partial(again, name), with_kwargs=True))
        try:
            # Autocast would keep copies of parameters that are corrected.
            with evaluation_mode(self._model), compute_precision("float32", self._device):
                call_model(self._model, copied(self._inputs))
        finally:
            for registered in hooks:
                registered.remove()


def _output(layer: str, owner: nn.Module, values: Tensor, prefix: str = "") -> _Output:
    """Describe an output, channels last, of a layer with the parameters `<prefix>weight`, ..."""
    std, mean = torch.std_mean(values.float().flatten(0, -2), dim=0, correction=0)
    weight, bias = (getattr(owner, f"{prefix}{what}") for what in ("weight", "bias"))
    return _Output(layer, weight, bias, mean.double(), std.double())


def _is_reached(output: _Output, wanted: _Output) -> bool:
    """Return whether a layer puts out what it should, up to rounding in float32 or its dtype."""
    tolerance = max(1e-3, 8 * torch.finfo(output.weight.dtype).eps)
    size = wanted.mean.abs() + wanted.std + wanted.std.mean()
    gaps = [(getattr(output, what) - getattr(wanted, what)).abs() for what in ("mean", "std")]
    return all(bool((gap <= tolerance * size).all()) for gap in gaps)


def _refusal(layer: str, why: str) -> InputError:
    return InputError(
        f"batchnorm is 'repaired', but the layer {layer!r} {why}, so that its statistics can't be "
        "reset in weight and bias; choose 'none'."
    )
