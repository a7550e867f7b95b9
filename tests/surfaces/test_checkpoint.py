"""Laws of checkpoints: no bit changes, damage is noticed, nothing is executed.

Damaged and hostile files: tests/files/test_damaged.py.
"""

import argparse
import collections
import pickle
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from conftest import NETWORKS, differing, make_network, make_surface, snapshot
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fourfold.errors import DivergenceError, InputError
from fourfold.files.tensors import read_header, state_hash
from fourfold.surfaces.checkpoint import (
    load_checkpoint,
    load_into,
    load_trajectory,
    save_checkpoint,
    save_trajectory,
)

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
          "bool")  # fmt: skip
NETWORK = snapshot(make_network("batchnorm").state_dict())
AVERAGE = {n: t + 1 if t.is_floating_point() else t for n, t in NETWORK.items()}


def every_kind():
    draw = torch.Generator().manual_seed(0)
    numbers = torch.rand(3, 2, generator=draw) * 9 - 4
    state = {dtype: numbers.to(getattr(torch, dtype)) for dtype in DTYPES}
    state |= {
        "scalar": torch.tensor(0.1),
        "count": torch.tensor(2**40),
        "none": torch.empty(0, 4),
        "signed zero": torch.tensor([-0.0, 0.0]),
        "tiny": torch.tensor([1e-42, 3.4e38]),
        "transposed": numbers.T,
    }
    state["same"] = state["scalar"]
    return state


def two_names_of_one_layer():
    layer = nn.BatchNorm1d(2)
    return nn.ModuleDict({"a": layer, "b": layer}).state_dict()


def pieces_of_one_block():
    block = torch.arange(6.0)
    return {"a": block[:4], "b": block[4:], "overlap": block[2:5]}


def saved(content, path):
    torch.save(content, path)
    return path


def refusal(content, path, **key):
    """Save what must be refused by `load_checkpoint`; return the message."""
    with pytest.raises(InputError) as refused:
        load_checkpoint(saved(content, path), **key)
    assert str(path) in str(refused.value)
    return str(refused.value)


# --- our own files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [every_kind, two_names_of_one_layer, pieces_of_one_block]
    + [lambda name=name: make_network(name).state_dict() for name in NETWORKS],
)
def test_a_round_trip_changes_no_bit(make, tmp_path):
    state = make()
    sha256 = save_checkpoint(state, tmp_path / "c.safetensors", {"epoch": 3})
    loaded = load_checkpoint(tmp_path / "c.safetensors")
    assert differing(loaded, state) == []
    assert list(loaded) == list(state)
    header = read_header(tmp_path / "c.safetensors")
    assert header["sha256"] == sha256 == state_hash(state) == state_hash(loaded)
    assert header["epoch"] == 3


@pytest.mark.parametrize("save", [save_checkpoint, torch.save])
def test_tied_tensors_are_stored_once_and_loaded_tied(save, tmp_path):
    state = make_network("tied").state_dict()
    save(state, tmp_path / "tied")
    loaded = load_checkpoint(tmp_path / "tied")
    assert differing(loaded, state) == []
    assert loaded["first.weight"].data_ptr() == loaded["second.weight"].data_ptr()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_of_a_run_come_back_bit_for_bit(name, tmp_path):
    keys = (3, 12, 7, "ema")
    networks = {key: make_network(name, seed=seed).state_dict() for seed, key in enumerate(keys)}
    save_trajectory(networks, tmp_path / "run.safetensors", {"seed": 5})
    found = load_trajectory(tmp_path / "run.safetensors")
    assert list(found) == [3, 12, 7, "ema"]
    for epoch, state in networks.items():
        assert list(found[epoch]) == list(state)
        assert differing(found[epoch], state) == []
    assert read_header(tmp_path / "run.safetensors")["seed"] == 5


def test_the_hash_does_not_depend_on_order_or_memory_layout():
    state = every_kind()
    shuffled = {name: state[name].clone() for name in sorted(state, reverse=True)}
    assert state_hash(shuffled) == state_hash(state)


@pytest.mark.parametrize(
    "changed",
    [
        {"a": torch.full((2, 2), 1e-6)},
        {"a": torch.zeros(2, 2).double()},
        {"a": torch.zeros(4)},
        {"b": torch.zeros(2, 2)},
        {"a": torch.zeros(2, 2), "b": torch.tensor(0)},
        {"a": -torch.zeros(2, 2)},
    ],
)
def test_the_hash_depends_on_values_dtype_shape_and_names(changed):
    assert state_hash(changed) != state_hash({"a": torch.zeros(2, 2)})


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "network.safetensors"
    save_checkpoint(NETWORK, path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"network\.safetensors.*hash"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_nan_or_an_infinity_is_not_saved(value, tmp_path):
    with pytest.raises(DivergenceError, match="'w'"):
        save_checkpoint({"w": torch.tensor([0, value])}, tmp_path / "nan.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_minus_infinity_is_saved(tmp_path):
    mask = torch.triu(torch.full((4, 4), -torch.inf), 1)
    save_checkpoint({"w": torch.ones(2), "mask": mask}, tmp_path / "c.safetensors")
    assert torch.equal(load_checkpoint(tmp_path / "c.safetensors")["mask"], mask)
    for broken in (-mask, mask.where(mask == 0, torch.nan), mask + torch.arange(4)):
        with pytest.raises(DivergenceError, match="'mask'"):
            save_checkpoint({"w": torch.ones(2), "mask": broken}, tmp_path / "broken")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"w": torch.ones(2), "epoch": 3}, "entry 'epoch' is int"),
        (nn.Linear(2, 2), "is Linear, no state dict"),
        ({"w": torch.ones(2).to(torch.float8_e4m3fn)}, "'w' is torch.float8_e4m3fn"),
        ({"w": torch.ones(2).to_sparse()}, "'w' is torch.sparse_coo"),
        ({"w": torch.ones(2, device="meta")}, "'w' is without values"),
    ],
)
def test_what_is_no_network_is_not_saved(state, said, tmp_path):
    with pytest.raises(InputError, match=f"not saving .*{said}"):
        save_checkpoint(state, tmp_path / "c.safetensors")
    assert list(tmp_path.iterdir()) == []


# --- which kind of file ---------------------------------------------------------------------------


def write_legacy(state, path):
    torch.save({"state_dict": state, "epoch": 9}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [torch.save, write_legacy, save_file, save_checkpoint])
@pytest.mark.parametrize("name", ["best.pth.tar", "epoch=9-step=100.ckpt", "weights", "a.pt",
                                  "a.bin", "a.safetensors"])  # fmt: skip
def test_a_checkpoint_is_known_by_its_first_bytes_whatever_its_name(name, write, tmp_path):
    write(NETWORK, tmp_path / name)
    assert differing(load_checkpoint(tmp_path / name), NETWORK) == []


@pytest.mark.parametrize(
    ("content", "seems"),
    [
        (b"", "cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>404", "HTML"),
        (b'{"metadata": {}, "weight_map": {"w": "model-00001-of-00002.safetensors"}}', "index"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "Keras"),
        (b"\x08\x07\x12\x07pytorch", "ONNX"),
        (b"\x1f\x8b\x08" + bytes(20), "unpack"),
        (pickle.dumps({"w": [0.5]}), "pickle that torch.save didn't write"),
        (b"w = 3\n", "it begins with b'w = 3"),
        (b"PK\x03\x04", "damaged"),
        (struct.pack("<Q", 40) + b'{"w": ', "get it again"),
        (struct.pack("<Q", 2**60) + b"{}", "get it again"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_it_seems_to_be(content, seems, tmp_path):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pth") as refused:
        load_checkpoint(tmp_path / "model.pth")
    assert seems in str(refused.value)


@pytest.mark.parametrize("name", ["folder", "missing.pt", "x" * 300, "a\0.pt"])
def test_what_is_no_file_is_refused(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"no file at .*give the one file"):
        load_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("write", "load", "said"),
    [
        (make_surface("no-norm").save, load_checkpoint, r"Surface\.load"),
        (lambda path: save_file({}, path), load_checkpoint, "holds no tensors"),
        (
            lambda path: save_file(NETWORK, path, {"fourfold": '{"order": ["a"]}'}),
            load_checkpoint,
            "names tensor 'a'",
        ),
        (lambda path: save_checkpoint(NETWORK, path), load_trajectory, "no networks of a run"),
        (
            lambda path: save_file(NETWORK, path),
            lambda path: load_checkpoint(path, key="ema"),
            "no key 'ema'",
        ),
    ],
)
def test_a_safetensors_file_of_another_kind_is_refused(write, load, said, tmp_path):
    write(tmp_path / "c.safetensors")
    with pytest.raises(InputError, match=rf"c\.safetensors.*{said}"):
        load(tmp_path / "c.safetensors")


# --- which state dict is meant --------------------------------------------------------------------


class Configuration(dict):
    """A subclass of dict, as configurations are."""


class Run:
    """An object of a project's own, with attributes that have names of methods."""

    def __init__(self):
        self.items, self.lr = 3, 0.1


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model_state_dict", "model", "MODEL_STATE", "module", "net", "network", "params",
     "weights", "net_state_dict", "modelStateDict", "model.state_dict", "checkpoint.model"],
)  # fmt: skip
def test_a_network_is_found_under_the_usual_names(key, tmp_path):
    content = NETWORK
    for name in reversed(key.split(".")):
        content = {name: content, "epoch": 3, "mean": torch.zeros(3)}
    optimizer = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}}}
    content |= {"optimizer": optimizer, "rng_state": torch.get_rng_state()}
    assert differing(load_checkpoint(saved(content, tmp_path / "c.pt")), NETWORK) == []


@pytest.mark.parametrize(
    ("raw", "average"),
    [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("params", "params_ema"),
     ("net", "ema"), ("model", "swa_model"), ("state_dict", "best_state_dict")],
)  # fmt: skip
def test_an_average_beside_the_network_is_said_and_read_on_demand(raw, average, tmp_path):
    path = saved({average: AVERAGE, raw: NETWORK, "epoch": 3}, tmp_path / "c.pt")
    with pytest.warns(UserWarning, match=f"'{raw}', .*key='{average}'"):
        assert differing(load_checkpoint(path), NETWORK) == []
    assert differing(load_checkpoint(path, key=average), AVERAGE) == []
    assert differing(load_checkpoint(path, key=raw), NETWORK) == []


def test_an_average_alone_is_read_and_said(tmp_path):
    path = saved({"params_ema": AVERAGE}, tmp_path / "c.pt")
    with pytest.warns(UserWarning, match="average"):
        assert differing(load_checkpoint(path), AVERAGE) == []


@pytest.mark.parametrize(
    "content",
    [
        {"student": NETWORK, "teacher": AVERAGE},
        {"model": NETWORK, "state_dict": AVERAGE},
        {"model": {"student": NETWORK, "teacher": AVERAGE}},
        {"encoder": NETWORK},
        {"ema": AVERAGE, "swa": AVERAGE},
        {"ema": AVERAGE, "model": make_network("no-norm")},
        {"1": NETWORK},
    ],
)
def test_which_of_several_is_not_guessed(content, tmp_path):
    message = refusal(content, tmp_path / "c.pt")
    assert "choose with key= one of '" in message
    assert f"({len(NETWORK)} entries)" in message


def test_a_key_is_a_dotted_path_of_names_that_may_have_dots(tmp_path):
    content = {"nets": {"a.b": {"c": NETWORK}}, "d.e": AVERAGE, "epoch": 3}
    path = saved(content, tmp_path / "c.pt")
    assert differing(load_checkpoint(path, key="nets.a.b.c"), NETWORK) == []
    assert differing(load_checkpoint(path, key="d.e"), AVERAGE) == []
    for key in ("x.y", "epoch"):
        message = refusal(content, path, key=key)
        assert f"no state dict at '{key}'; there is a dictionary with 'nets' (dictionary" in message


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 3}, torch.zeros(1)])
def test_a_file_without_a_state_dict_is_refused(content, tmp_path):
    assert "holds no state dict" in refusal(content, tmp_path / "c.pt")


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=0.1, output=PurePosixPath("x")),
        np.float64(0.9),
        np.zeros(3),
        Configuration(lr=0.1, layers=[1, 2]),
        collections.defaultdict(list, a=[1]),
        Run(),
        [range(3), {1}, 1j, 2**40, b"x", slice(3)],
        torch.optim.SGD([torch.zeros(1)], lr=0.1),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_what_lies_beside_the_weights_is_passed_over(beside, is_zip, tmp_path):
    content, path = {"model": NETWORK, "beside": beside}, tmp_path / "c.pt"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    allowed = set(torch.serialization.get_safe_globals())
    assert differing(load_checkpoint(path), NETWORK) == []
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_threads_may_load_at_once(tmp_path):
    path = saved({"model": NETWORK, "args": argparse.Namespace(lr=0.1)}, tmp_path / "c.pt")
    with ThreadPoolExecutor(4) as pool:
        for state in pool.map(load_checkpoint, [path] * 20):
            assert differing(state, NETWORK) == []


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (make_network("no-norm"), "torch.nn.modules.container.Sequential"),
        ({"model": make_network("no-norm"), "epoch": 3}, "torch.nn.modules.container.Sequential"),
        ({"w": torch.zeros(2), "c": Run()}, "Run"),
        ({"model": NETWORK, "tail": collections.deque([1])}, "collections.deque"),
    ],
)
def test_what_can_not_be_read_is_refused_with_the_name_of_its_class(content, name, tmp_path):
    assert name in refusal(content, tmp_path / "c.pt")


# --- what is in it --------------------------------------------------------------------------------


def named(prefix):
    return {prefix + name: tensor for name, tensor in NETWORK.items()}


def swa_state():
    return AveragedModel(nn.DataParallel(make_network("batchnorm"))).state_dict()


@pytest.mark.parametrize("write", [torch.save, save_file])
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (named("module."), NETWORK),
        (named("_orig_mod."), NETWORK),
        (named("module._orig_mod."), NETWORK),
        (named("_orig_mod.module."), NETWORK),
        (swa_state(), NETWORK),
        (named("model."), named("model.")),
        ({**named("module."), "head": torch.ones(1)},) * 2,
        ({"n_averaged": torch.tensor(3), **NETWORK},) * 2,
    ],
)
def test_prefixes_of_wrappers_are_removed_if_all_names_have_them(state, expected, write, tmp_path):
    write(state, tmp_path / "c")
    assert differing(load_checkpoint(tmp_path / "c"), expected) == []


class Doubling(nn.Module):
    """A wrapper that computes something, with the attribute that PyTorch's have."""

    def __init__(self, attribute):
        super().__init__()
        self.attribute = attribute
        setattr(self, attribute, nn.Linear(4, 2))

    def forward(self, x):
        return getattr(self, self.attribute)(2 * x)


@pytest.mark.parametrize("attribute", ["module", "model", "_orig_mod"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_prefix_that_the_module_has_itself_stays(attribute, wrapped, tmp_path):
    network = Doubling(attribute)
    torch.save((nn.DataParallel(network) if wrapped else network).state_dict(), tmp_path / "c")
    again = Doubling(attribute)
    assert load_into(again, tmp_path / "c") == "module." * wrapped
    assert differing(again.state_dict(), network.state_dict()) == []


def test_names_in_our_own_files_stay_as_they_are(tmp_path):
    save_checkpoint(named("module."), tmp_path / "c")
    assert differing(load_checkpoint(tmp_path / "c"), named("module.")) == []


def test_parameters_are_tensors_and_an_extra_state_without_a_value_is_left_out(tmp_path):
    state = dict(make_network("no-norm").named_parameters())
    path = saved({**state, "0._extra_state": None, "_extra_state": None}, tmp_path / "c.pt")
    loaded = load_checkpoint(path)
    assert differing(loaded, state) == []
    assert not any(tensor.requires_grad for tensor in loaded.values())


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (None, "NoneType"),
        ({"a": 1}, "dictionary of 1"),
        ([torch.zeros(1)], "list"),
        (np.ones(1), "numpy"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.empty(2, device="meta"), "meta"),
        (nn.UninitializedParameter(), "UninitializedParameter"),
    ],
)
def test_an_entry_that_is_no_plain_tensor_is_refused_by_name(entry, said, tmp_path):
    assert re.search(
        rf"'0\.odd' \([^)]*{said}", refusal({**NETWORK, "0.odd": entry}, tmp_path / "c.pt")
    )


@pytest.mark.parametrize("escape", ["\x1b[2J", "\x9b1m", "\u202e", "\r"])
def test_names_in_a_file_send_nothing_to_the_terminal(escape, tmp_path):
    for content in ({escape: NETWORK, f"b{escape}": NETWORK}, {"w": torch.zeros(1), escape: 3}):
        assert refusal(content, tmp_path / "c.pt").isprintable()
    path = saved({"model": NETWORK, f"ema{escape}": AVERAGE}, tmp_path / "c.pt")
    with pytest.warns(UserWarning, match="ema") as caught:
        load_checkpoint(path)
    assert str(caught[0].message).isprintable()
