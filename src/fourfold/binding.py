"""Run any module with parameters taken from a flat vector, and get the gradient as one."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fourfold.batchnorm import batchnorm_layers
from fourfold.errors import InputError
from fourfold.layout import load_state
from fourfold.precision import check_precision, compute_precision
from fourfold.surface import BezierSurface


class BoundModel:
    """A training copy of a model whose parameters are pieces of a flat vector of D numbers.

    BatchNorm layers normalize by the batch and keep no running statistics, which mean nothing along
    a surface. The model given is not touched.

    Attributes:
        module: the copy, in training mode.
        constant_columns: pieces of the vector that the model does not train (frozen parameters,
            buffers); their gradient is 0.
        alias_columns: pieces that repeat a tied parameter; their gradient repeats its gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        surface: BezierSurface,
        device: torch.device,
        *,
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        """Copy `model`, check that it is of the surface's architecture, and find its parameters."""
        self.module = copy.deepcopy(model).to(device)
        load_state(self.module, surface.state_dict(0.0, 0.0))
        self._layout = layout = surface.layout
        tensors: dict[str, Tensor] = dict(self.module.named_buffers(remove_duplicate=False))
        tensors |= self.module.named_parameters(remove_duplicate=False)
        first_name: dict[int, str] = {}
        self._trainable: dict[str, Tensor] = {}
        self._constant: dict[str, Tensor] = {}
        self._aliases: dict[str, str] = {}  # tied in the model, stored twice in the vector
        self.constant_columns: list[slice] = []
        self.alias_columns: list[slice] = []
        start = 0
        for name, size in zip(layout.names, layout.sizes, strict=True):
            tensor = tensors.get(name)
            if tensor is None or not tensor.requires_grad:
                self.constant_columns.append(slice(start, start + size))
                if tensor is not None:
                    self._constant[name] = tensor
            elif id(tensor) in first_name:
                self._aliases[name] = first_name[id(tensor)]
                self.alias_columns.append(slice(start, start + size))
                self._check_tied(surface, name, self._aliases[name])
            else:
                first_name[id(tensor)] = name
                self._trainable[name] = tensor
            start += size
        if not self._trainable:
            raise InputError(
                "the model has no trainable parameter; set requires_grad of at least one."
            )
        for layer in batchnorm_layers(self.module):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        self.module.train()
        check_precision(precision)
        self._precision, self._device = precision, device
        self._forward = torch.compile(self.module) if compile else self.module

    def gradient(
        self,
        theta: Tensor,
        inputs: Tensor,
        labels: Tensor,
        loss_function: Callable[[Tensor, Tensor], Tensor],
        out: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Write the gradient of the mean loss at `theta` into `out`.

        Args:
            theta: (D,) parameters.
            inputs: a preprocessed batch.
            labels: its labels.
            loss_function: maps logits and labels to a scalar.
            out: (D,) receives dL/dtheta.

        Returns:
            The loss and the logits, detached.
        """
        # The module's tensors become views of `theta`, its gradients views of `out`: the
        # backward pass adds each gradient to its piece while it is in the cache, and frees it.
        # (The gradient of one sliced vector would be a sum of as many full vectors as pieces.)
        pieces, gradients = self._layout.views(theta), self._layout.views(out.zero_())
        for name, tensor in self._constant.items():
            tensor.data = pieces[name].to(tensor.dtype)  # the model's own: the vector is float32
        for name, parameter in self._trainable.items():
            parameter.data = pieces[name].to(parameter.dtype)
            parameter.grad = gradients[name].to(parameter.dtype)
        with compute_precision(self._precision, self._device):
            logits = self._forward(inputs)
            loss = loss_function(logits, labels)
        loss.backward(inputs=list(self._trainable.values()))
        for name, parameter in self._trainable.items():
            if parameter.dtype != out.dtype:  # its gradient is no view
                gradients[name].copy_(parameter.grad)
        for alias, name in self._aliases.items():
            gradients[alias].copy_(gradients[name])
        return loss.detach(), logits.detach()

    @staticmethod
    def _check_tied(surface: BezierSurface, alias: str, name: str) -> None:
        pieces = dict(
            zip(
                surface.layout.names,
                surface.control_points.split(surface.layout.sizes, dim=1),
                strict=True,
            )
        )
        if not torch.equal(pieces[alias], pieces[name]):
            raise InputError(
                f"the model ties {alias!r} to {name!r}, but a corner holds different values for "
                "them; save the corners from the model that ties them."
            )
