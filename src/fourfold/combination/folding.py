"""LayerNorms that have one gain for all units, so that these may be rotated."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fourfold.combination.symmetry import Norm, find_norms
from fourfold.data.batches import call_model
from fourfold.data.inputs import Input, output_tensors, parts_of
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.modules import evaluation_mode, load_state


def fold_gains(
    network: nn.Module, inputs: Input, states: Sequence[StateDict]
) -> list[dict[str, Tensor]]:
    """Move what the gains of a LayerNorm have for each unit into the weights that read its output.

    It has the same gain for all then, their root mean square, and a bias of 0, and the function
    stays the same. Left as it is where something else than linear maps reads it, or one without a
    bias of its own to take up that of the LayerNorm.

    Args:
        network: a module on the CPU; what it has is overwritten.
        inputs: some that it takes.
        states: its state dicts.

    Returns:
        New state dicts; what isn't changed is shared with the given ones.

    Reference: Ashkboos et al., "SliceGPT: Compress Large Language Models by Deleting Rows and
    Columns", ICLR 2024, section 3.
    """
    load_state(network, states[0])
    folded = [dict(state) for state in states]
    for norm in find_norms(network, inputs):
        changes = [_fold(norm, state) for state in folded]
        new = [
            state | change
            for state, change in zip(folded, changes, strict=True)
            if change is not None
        ]
        if len(new) == len(states) and not difference(network, states[0], new[0], inputs):
            folded = new
    return folded


def difference(network: nn.Module, before: StateDict, after: StateDict, inputs: Input) -> float:
    """Return by how much the outputs of two states differ, if that is more than by rounding.

    NaN if one of them has a NaN.
    """
    outputs = []
    for state in (before, after):
        load_state(network, state)
        with torch.no_grad(), evaluation_mode(network):
            output = output_tensors(call_model(network, inputs))
        outputs.append([] if output is None else parts_of(output))
    found = [torch.zeros(())]
    for old, new in zip(*outputs, strict=True):
        tolerance = min(1e4 * torch.finfo(old.dtype).eps, 0.1) if old.is_floating_point() else 0
        largest = float(torch.where(old.isfinite(), old, 0).abs().max())
        if not torch.allclose(old, new, rtol=tolerance, atol=tolerance * largest):
            found.append((old - new).abs().max().float().cpu())
    return float(torch.stack(found).max())  # which keeps a NaN, unlike Python's max


def _fold(norm: Norm, state: StateDict) -> dict[str, Tensor] | None:
    """Return what changes in a state dict, if that can be done."""
    names = [norm.gain, norm.shift, *(name for reader in norm.readers for name in reader[::2])]
    if any(name is not None and name not in state for name in names):
        return None
    gain = state[norm.gain].double()
    common = gain.square().mean().sqrt()
    if not common.isfinite() or common == 0:
        return None
    new = {norm.gain: common.expand_as(gain)}
    shift = None if norm.shift is None else state[norm.shift].double()
    if norm.shift is not None and shift is not None:
        new[norm.shift] = torch.zeros_like(shift)
    for name, dim, bias in norm.readers:
        weight = state[name].double().movedim(dim, -1)
        new[name] = (weight * (gain / common)).movedim(-1, dim)
        if shift is not None and shift.any():
            if bias is None or state[bias].shape != weight.shape[:-1]:
                return None
            new[bias] = new.get(bias, state[bias].double()) + weight @ shift
    return {name: tensor.to(state[name].dtype).contiguous() for name, tensor in new.items()}
