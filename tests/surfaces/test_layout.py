"""Laws of the flat parameter vector."""

import pytest
import torch
from conftest import NETWORKS, differing, make_corners, make_network

from fourfold.errors import InputError
from fourfold.surfaces.layout import ParameterLayout, check_same_architecture, find_ties
from fourfold.surfaces.surface import separate

NAN, INFINITY = float("nan"), float("inf")


def flattened(state):
    tied = find_ties([state], ["it"])
    names = [name for name, t in state.items() if t.is_floating_point() and name not in tied]
    layout = ParameterLayout.of(state, names, tied)
    vector = torch.empty(layout.dimension, dtype=layout.dtype)
    layout.flatten(state, out=vector)
    return layout, vector


@pytest.mark.parametrize("name", [*NETWORKS, "scalars and empty tensors"])
def test_flattening_and_unflattening_gives_a_copy_of_the_state_dict(name):
    state = {"a": torch.tensor(2.0), "none": torch.empty(0, 3), "b": torch.ones(2)}
    if name in NETWORKS:
        network = make_network(name)
        state = network.state_dict() | dict(network.named_parameters())
    layout, vector = flattened(state)
    before = vector.clone()
    back = layout.state_dict(vector, state)
    assert list(back) == list(state)
    assert differing(back, state) == []
    assert not vector.requires_grad
    for tensor in back.values():
        tensor.zero_()
    assert torch.equal(vector, before)


@pytest.mark.parametrize("name", ["batchnorm", "resnet18", "vgg16"])
def test_running_statistics_are_no_coordinates(name):
    network = make_network(name)
    layout, buffers = separate(make_corners(name), "abcd")
    assert layout.dimension == sum(parameter.numel() for parameter in network.parameters())
    assert set(layout.buffers) == {buffer for buffer, _ in network.named_buffers()}
    assert set(buffers.varying) == set(layout.buffers)


def test_tied_tensors_are_in_the_vector_once_and_tied_again_in_the_state_dict():
    network = make_network("tied")
    layout, vector = flattened(network.state_dict())
    assert layout.dimension == sum(parameter.numel() for parameter in network.parameters())
    state = layout.state_dict(vector, {})
    assert state["first.weight"].data_ptr() == state["second.weight"].data_ptr()


def test_views_share_the_memory_of_the_vector_and_cover_it():
    layout, vector = flattened(make_network("layernorm").state_dict())
    views = layout.views(vector)
    for view in views.values():
        view.zero_()
    assert not vector.any()
    assert sum(view.numel() for view in views.values()) == layout.dimension


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({}, "no floating tensors"),
        ({"steps": torch.tensor(3)}, "steps"),
        ({"phase": torch.zeros(2, dtype=torch.complex64)}, "'phase' is torch.complex64"),
        ({"phase": torch.zeros(2, dtype=torch.float8_e4m3fn)}, "'phase' is torch.float8_e4m3fn"),
        ({"phase": torch.zeros(2, device="meta")}, "'phase' is without values"),
        ({"phase": torch.zeros(2, 2).to_sparse()}, "'phase' is torch.sparse_coo"),
        ({"phase": 3}, "'phase' is int"),
        (torch.nn.Linear(1, 1), "no state dict"),
    ],
)
def test_what_holds_no_dense_tensors_of_real_numbers_is_refused_by_name(state, said):
    with pytest.raises(InputError, match=said):
        check_same_architecture([state, state], "ab")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"1.bias": None}, ["south lacks '1.bias'", "south and north"]),
        ({"extra": torch.zeros(1)}, ["adds 'extra'"]),
        ({"1.bias": torch.zeros(7)}, ["1.bias", "(7,)", "in south", "(6,)"]),
        ({"1.bias": torch.zeros(6).double()}, ["1.bias", "float64 in south", "float32"]),
        ({"1.bias": torch.full((6,), NAN)}, ["'1.bias' of south holds a NaN"]),
        ({"1.bias": torch.full((6,), INFINITY)}, ["'1.bias' of south", "infinity"]),
    ],
)
def test_networks_that_differ_are_refused_by_tensor_and_network(changes, said):
    states = make_corners("no-norm")
    check_same_architecture(states, ["north", "east", "south", "west"])
    states[2] = {k: v for k, v in (states[2] | changes).items() if v is not None}
    with pytest.raises(InputError) as caught:
        check_same_architecture(states, ["north", "east", "south", "west"])
    assert all(part in str(caught.value) for part in said)
