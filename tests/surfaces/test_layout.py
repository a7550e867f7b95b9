"""Laws of the flat parameter vector."""

import pytest
import torch
from conftest import NETWORKS, differing, make_corners, make_network
from torch import nn

from fourfold.errors import InputError
from fourfold.surfaces.layout import ParameterLayout, check_same_architecture, find_ties
from fourfold.surfaces.surface import separate


def flattened(state):
    tied = find_ties([state], ["it"])
    names = [name for name, t in state.items() if t.is_floating_point() and name not in tied]
    layout = ParameterLayout.of(state, names, tied)
    vector = torch.empty(layout.dimension, dtype=layout.dtype)
    layout.flatten(state, out=vector)
    return layout, vector


@pytest.mark.parametrize("name", NETWORKS)
def test_flattening_and_unflattening_gives_the_state_dict_back(name):
    state = make_network(name).state_dict()
    layout, vector = flattened(state)
    back = layout.state_dict(vector, state)
    assert list(back) == list(state)
    assert differing(back, state) == []


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


def test_a_state_dict_is_a_copy_of_the_vector():
    layout, vector = flattened(make_network("no-norm").state_dict())
    before = vector.clone()
    for tensor in layout.state_dict(vector, {}).values():
        tensor.zero_()
    assert torch.equal(vector, before)


def test_flattening_leaves_the_autograd_graph_behind():
    network = make_network("no-norm")
    _, vector = flattened(dict(network.named_parameters()))
    assert not vector.requires_grad


def test_scalars_and_empty_tensors_have_a_place():
    state = {"a": torch.tensor(2.0), "none": torch.empty(0, 3), "b": torch.ones(2)}
    layout, vector = flattened(state)
    assert vector.tolist() == [2.0, 1.0, 1.0]
    assert differing(layout.state_dict(vector, {}), state) == []


@pytest.mark.parametrize(
    ("state", "said"),
    [({}, "no floating tensors"), ({"steps": torch.tensor(3)}, "steps")],
)
def test_state_dicts_without_floating_tensors_are_refused(state, said):
    with pytest.raises(InputError, match=said):
        check_same_architecture([state, state], "ab")


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.zeros(2, dtype=torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.zeros(2, device="meta"), "meta"),
        (torch.zeros(2, 2).to_sparse(), "sparse_coo"),
    ],
)
def test_what_is_no_dense_tensor_of_real_numbers_is_refused_by_name(tensor, said):
    with pytest.raises(InputError, match=rf"'phase'.*{said}"):
        check_same_architecture([{"phase": tensor}], "a")


def without_bias(state):
    del state["1.bias"]


def with_extra(state):
    state["extra"] = torch.zeros(1)


def with_other_shape(state):
    state["1.bias"] = torch.zeros(7)


def with_other_dtype(state):
    state["1.bias"] = state["1.bias"].double()


def with_nan(state):
    state["1.bias"] = state["1.bias"].clone().fill_(float("nan"))


def with_infinity(state):
    state["1.bias"] = state["1.bias"].clone().fill_(float("inf"))


def with_a_number(state):
    state["1.bias"] = 3


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_bias, ["1.bias", "lacks"]),
        (with_extra, ["extra", "adds"]),
        (with_other_shape, ["1.bias", "(7,)", "(6,)"]),
        (with_other_dtype, ["1.bias", "float64", "float32"]),
        (with_nan, ["1.bias", "NaN"]),
        (with_infinity, ["1.bias", "infinity"]),
        (with_a_number, ["1.bias", "int"]),
    ],
)
@pytest.mark.parametrize("which", [0, 2])
def test_networks_that_differ_are_refused_by_tensor_and_network(damage, said, which):
    states = make_corners("no-norm")
    damage(states[which])
    with pytest.raises(InputError) as caught:
        check_same_architecture(states, ["north", "east", "south", "west"])
    for part in said:
        assert part in str(caught.value) or (which == 0 and part in ("lacks", "adds"))
    if damage not in (with_other_shape, with_other_dtype) and which == 2:
        assert "south" in str(caught.value)


def test_networks_of_one_architecture_pass():
    check_same_architecture([nn.Linear(2, 3).state_dict() for _ in range(4)], ["a", "b", "c", "d"])
