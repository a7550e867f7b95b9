"""Run any module with parameters taken from a flat vector, and get the gradient as one."""

from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fourfold.data.batches import call_model
from fourfold.data.inputs import Input, Loss
from fourfold.errors import InputError
from fourfold.evaluation.precision import check_precision, compute_precision
from fourfold.surfaces.layout import first_names
from fourfold.surfaces.modules import (
    check_buffers,
    copy_gradient_hooks,
    copy_module,
    load_state,
    module_of,
    tied_names,
    trained_batchnorm_layers,
)
from fourfold.surfaces.surface import Surface

# Of spectral norm, in each forward pass: from one point of a step to the next its weights change
# far more than from one step of a single network to the next.
_POWER_ITERATIONS = 10
# GPU kernels that move several numbers at once need addresses that are multiples of this many
# bytes; some of cuDNN's fail elsewhere, instead of falling back ("misaligned address").
ALIGNMENT = 16


class BoundModel:
    """A training copy of a model whose parameters are pieces of a flat vector of D numbers.

    BatchNorm layers normalize by the batch and keep no running statistics, which mean nothing along
    a surface; but for those that the model's `train` leaves in evaluation mode. The model given is
    not touched.

    Attributes:
        module: the copy, in training mode.
        constant_columns: pieces of the vector that the model does not train (frozen parameters);
            their gradient is 0.
    """

    def __init__(
        self,
        model: nn.Module,
        surface: Surface,
        device: torch.device,
        *,
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        """Copy `model`, check that it is of the surface's architecture, and find its parameters.

        What the corners share and the model trains becomes part of the surface's control points.
        """
        corner = surface.corner()
        original = module_of(model, corner)
        self.module = copy_module(original).to(device)
        copy_gradient_hooks(original, self.module)
        self._originals = dict(original.named_parameters())
        self._gradients = {name: _version(p.grad) for name, p in self._originals.items()}
        load_state(self.module, corner)
        parameters = dict(self.module.named_parameters(remove_duplicate=False))
        check_buffers(self.module, surface.layout.names)
        surface.arrange(*_coordinates(surface, self.module))
        self._layout = layout = surface.layout
        inside = {name: parameters[name] for name in layout.names}
        self._trainable = {name: p for name, p in inside.items() if p.requires_grad}
        self._constant = {name: p for name, p in inside.items() if not p.requires_grad}
        ends = dict(zip(layout.names, accumulate(layout.sizes), strict=True))
        starts = {name: end - inside[name].numel() for name, end in ends.items()}
        self.constant_columns = [slice(starts[name], ends[name]) for name in self._constant]
        width = layout.dtype.itemsize if device.type == "cuda" else ALIGNMENT
        self._misaligned = {name for name, k in starts.items() if k * width % ALIGNMENT}
        self.module.train()
        for layer in trained_batchnorm_layers(self.module):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        # Whatever statistics are left belong to layers that don't normalize by the batch, or don't
        # mind what theirs are while they do.
        buffers = dict(self.module.named_buffers(remove_duplicate=False))
        self._chosen = surface.buffers.chosen(buffers)
        self._buffers = {name: buffers[name] for name in self._chosen.policies}
        norm: Any
        for module in self.module.modules():
            for norm in (module, *module._forward_pre_hooks.values()):
                if isinstance(getattr(norm, "n_power_iterations", None), int):
                    norm.n_power_iterations = max(norm.n_power_iterations, _POWER_ITERATIONS)
        check_precision(precision)
        self._precision, self._device = precision, device
        self._forward = torch.compile(self.module) if compile else self.module

    @property
    def has_moving_buffers(self) -> bool:
        """Whether buffers differ from point to point."""
        return bool(self._buffers)

    def gradient(
        self,
        theta: Float[Tensor, " parameters"],
        inputs: Input,
        labels: Input,
        loss_function: Loss,
        out: Float[Tensor, " parameters"],
        mixture: Float[Tensor, " corners"] | None,
    ) -> tuple[Float[Tensor, ""], Any]:
        """Write the gradient of the mean loss at `theta` into `out`; return loss and output.

        Args:
            theta: parameters of the point.
            inputs: a preprocessed batch.
            labels: its labels.
            loss_function: maps the model's output and labels to a scalar.
            out: receives dL/dtheta.
            mixture: weights of the corners at the point, for buffers that differ between points.
        """
        # The module's tensors become views of `theta`, its gradients views of `out`: the
        # backward pass adds each gradient to its piece while it is in the cache, and frees it.
        # (The gradient of one sliced vector would be a sum of as many full vectors as pieces.)
        pieces, gradients = self._layout.views(theta), self._layout.views(out.zero_())
        for name, tensor in self._constant.items():
            # The model's dtype, not the vector's.
            tensor.data = pieces[name].to(tensor.dtype, copy=name in self._misaligned)
        for name, parameter in self._trainable.items():
            copy = name in self._misaligned
            parameter.data = pieces[name].to(parameter.dtype, copy=copy)
            parameter.grad = gradients[name].to(parameter.dtype, copy=copy)
        if mixture is not None and self._buffers:
            values = self._chosen.at(mixture, {}, {}, is_network=False)
            for name, buffer in self._buffers.items():
                buffer.copy_(values[name])
        with compute_precision(self._precision, self._device):
            output = call_model(self._forward, inputs)
            loss = loss_function(output, labels)
        loss.backward()  # reentrant checkpoints refuse a list of what to differentiate by
        self._refuse_foreign_gradients()
        for name, parameter in self._trainable.items():
            is_view = parameter.dtype == out.dtype and name not in self._misaligned
            if not is_view and parameter.grad is not None:
                gradients[name].copy_(parameter.grad)
        return loss.detach(), output

    def _refuse_foreign_gradients(self) -> None:
        """Refuse a loss that has reached the parameters of the model that was given."""
        reached = []
        for name, before in self._gradients.items():
            parameter = self._originals[name]
            if _version(parameter.grad) != before:
                reached.append(name)
                if before is None:
                    parameter.grad = None
        if reached:
            raise InputError(
                f"loss_function computes with the model's own parameters ({reached[0]!r} got a "
                "gradient), but a fit runs copies of the model at points of the surface: such a "
                "term would change nothing. Compute it in forward() and return it beside the "
                "output, or use weight_decay."
            )
        self._gradients.clear()  # the first step tells


def _version(gradient: Tensor | None) -> int | None:
    """Return how often a gradient was added to, None of none."""
    return None if gradient is None else gradient._version


def _coordinates(surface: Surface, module: nn.Module) -> tuple[set[str], dict[str, str]]:
    """Return the names of a surface's coordinates, and the ties, as the module declares them.

    What it trains is a coordinate even where all corners share it; what it ties is one tensor even
    where files hold it twice, and what it doesn't tie is two, even where the corners do.
    """
    layout, shared = surface.layout, surface.buffers.shared
    parameters = dict(module.named_parameters(remove_duplicate=False))
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
    if named := [name for name in trained if name in surface.buffers.policies]:
        raise InputError(
            f"from_corners was given buffers for {first_names(named)}, which the model trains; "
            "leave parameters out there, or freeze them in the model."
        )
    columns = dict(
        zip(layout.names, surface.control_points.split(layout.sizes, dim=1), strict=True)
    )
    tied = {alias: name for alias, name in layout.tied.items() if alias not in parameters}
    for group in tied_names(module):
        named = [name for name in layout.order if name in group and name in parameters]
        for alias in named[1:]:  # buffers that are tied have no coordinates
            name = named[0]
            first, second = (layout.tied.get(one, one) for one in (name, alias))
            is_one = first == second or (first in shared and second in shared)
            if not is_one and not (
                {first, second} <= columns.keys() and torch.equal(columns[first], columns[second])
            ):
                raise InputError(
                    f"the model ties {alias!r} to {name!r}, but a corner holds different values "
                    "for them; save the corners from the model that ties them."
                )
            tied[alias] = name
    names = {
        name
        for name in layout.order
        if name in parameters
        and name not in tied
        and (layout.tied.get(name, name) in columns or parameters[name].requires_grad)
    }
    return names, tied
