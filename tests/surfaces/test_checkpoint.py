"""Laws of checkpoints: no bit changes, damage is noticed, nothing is executed."""

import argparse
import collections
import contextlib
import pickle
import random
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from conftest import NETWORKS, differing, make_network, make_surface, snapshot
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fourfold.errors import DivergenceError, InputError, WriteError
from fourfold.files.tensors import read_header, state_hash
from fourfold.surfaces.checkpoint import (
    load_checkpoint,
    load_trajectory,
    save_checkpoint,
    save_trajectory,
)

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


def every_kind() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    state = {str(dtype): (torch.rand(3, 2, generator=draw) * 9 - 4).to(dtype) for dtype in DTYPES}
    state |= {
        "scalar": torch.tensor(0.1),
        "count": torch.tensor(2**40),
        "none": torch.empty(0, 4),
        "signed zero": torch.tensor([-0.0, 0.0]),
        "tiny": torch.tensor([1e-42, 3.4e38]),
        "transposed": torch.rand(3, 2, generator=draw).T,
    }
    state["same"] = state["scalar"]
    return state


def test_a_round_trip_changes_no_bit_of_any_dtype(tmp_path):
    state = every_kind()
    sha256 = save_checkpoint(state, tmp_path / "all.safetensors", {"epoch": 3})
    loaded = load_checkpoint(tmp_path / "all.safetensors")
    assert differing(loaded, state) == []
    assert list(loaded) == list(state)
    header = read_header(tmp_path / "all.safetensors")
    assert header["sha256"] == sha256 == state_hash(state) == state_hash(loaded)
    assert header["epoch"] == 3


@pytest.mark.parametrize("name", NETWORKS)
def test_a_round_trip_changes_no_bit_of_a_network(name, tmp_path):
    network = make_network(name)
    before = snapshot(network.state_dict())
    save_checkpoint(network.state_dict(), tmp_path / "network.safetensors")
    loaded = load_checkpoint(tmp_path / "network.safetensors")
    assert differing(loaded, before) == []
    make_network(name, seed=1).load_state_dict(loaded)


def test_tied_tensors_are_stored_once_and_loaded_tied(tmp_path):
    state = make_network("tied").state_dict()
    save_checkpoint(state, tmp_path / "tied.safetensors")
    loaded = load_checkpoint(tmp_path / "tied.safetensors")
    assert loaded["first.weight"].data_ptr() == loaded["second.weight"].data_ptr()


def test_a_layer_that_a_network_holds_under_two_names_is_saved_with_its_buffers(tmp_path):
    layer = nn.BatchNorm1d(2)
    state = nn.ModuleDict({"a": layer, "b": layer}).state_dict()
    save_checkpoint(state, tmp_path / "shared.safetensors")
    assert differing(load_checkpoint(tmp_path / "shared.safetensors"), state) == []


def test_pieces_of_one_block_of_memory_are_saved(tmp_path):
    block = torch.arange(6.0)
    state = {"a": block[:4], "b": block[4:], "overlap": block[2:5]}
    save_checkpoint(state, tmp_path / "pieces.safetensors")
    assert differing(load_checkpoint(tmp_path / "pieces.safetensors"), state) == []


def test_the_hash_does_not_depend_on_order_or_memory_layout():
    state = every_kind()
    shuffled = {name: state[name].clone() for name in sorted(state, reverse=True)}
    assert state_hash(shuffled) == state_hash(state)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s | {"a": s["a"] + 1e-6},
        lambda s: s | {"a": s["a"].double()},
        lambda s: s | {"a": s["a"].view(4)},
        lambda s: {"b": s["a"]},
        lambda s: s | {"b": torch.tensor(0)},
        lambda s: s | {"a": -s["a"] * 0},
    ],
)
def test_the_hash_depends_on_values_dtype_shape_and_names(change):
    state = {"a": torch.zeros(2, 2)}
    assert state_hash(change(state)) != state_hash(state)


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "network.safetensors"
    save_checkpoint(make_network("batchnorm").state_dict(), path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"network\.safetensors.*hash"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_nan_or_an_infinity_is_not_saved(value, tmp_path):
    state = snapshot(make_network("no-norm").state_dict())
    state["1.bias"][2] = value
    with pytest.raises(DivergenceError, match=r"1\.bias"):
        save_checkpoint(state, tmp_path / "nan.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_safetensors_file_of_another_program_is_read(tmp_path):
    state = snapshot(make_network("batchnorm").state_dict())
    save_file(state, tmp_path / "foreign.safetensors")
    assert differing(load_checkpoint(tmp_path / "foreign.safetensors"), state) == []
    assert read_header(tmp_path / "foreign.safetensors") == {}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s, "epoch": 3}])
def test_a_torch_file_of_tensors_is_read(suffix, wrap, tmp_path):
    state = make_network("tied").state_dict()
    path = tmp_path / f"foreign{suffix}"
    torch.save(wrap(state), path)
    assert differing(load_checkpoint(path), state) == []


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_a_pickle_with_code_runs_nothing_and_is_refused(write, tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "trap.pt"
    write({"weight": torch.zeros(1), "trap": Trap(sprung)}, path)
    with pytest.raises(InputError, match=r"trap\.pt"):
        load_checkpoint(path)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 3}, torch.zeros(1)])
def test_a_torch_file_without_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(InputError, match="no state dict"):
        load_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0, 5, 40, -20])
def test_a_truncated_file_is_refused_by_name(suffix, kept, tmp_path):
    path, state = tmp_path / f"cut{suffix}", make_network("no-norm").state_dict()
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_checkpoint(state, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=rf"cut\{suffix}"):
        load_checkpoint(path)


def test_damaged_torch_files_are_refused_or_read_but_never_crash(tmp_path):
    path, draw = tmp_path / "damaged.pt", random.Random(0)
    write_legacy(NETWORK, path)
    original, outcomes = path.read_bytes()[:400], set()
    for _ in range(150):
        content = bytearray(original)
        for _ in range(3):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            load_checkpoint(path)
        except InputError as error:
            outcomes.add("damaged.pt" in str(error))
    assert outcomes == {True}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_missing_file_is_refused_with_its_path(suffix, tmp_path):
    with pytest.raises(InputError, match=rf"no file at .*missing\{suffix}"):
        load_checkpoint(tmp_path / f"missing{suffix}")


def test_a_header_that_names_another_tensor_is_refused(tmp_path):
    metadata = {"fourfold": '{"order": ["a", "b"]}'}
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata)
    with pytest.raises(InputError, match="'b'"):
        load_checkpoint(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_header_that_is_no_json_object_is_refused(text, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", {"fourfold": text})
    with pytest.raises(InputError, match=r"odd\.safetensors: the header"):
        load_checkpoint(tmp_path / "odd.safetensors")


def test_a_file_that_claims_a_huge_header_is_refused(tmp_path):
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(InputError, match=r"huge\.safetensors"):
        load_checkpoint(tmp_path / "huge.safetensors")


# --- which kind of file ---------------------------------------------------------------------------


def write_zip(state, path):
    torch.save({"state_dict": state, "epoch": 9}, path)


def write_legacy(state, path):
    torch.save({"state_dict": state, "epoch": 9}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [write_zip, write_legacy, save_file, save_checkpoint])
@pytest.mark.parametrize(
    "name", ["model_best.pth.tar", "a.th", "epoch=9-step=100.ckpt", "a.pkl", "a.model", "a.PTH",
             "weights", "a.pt", "a.bin", "a.safetensors"]
)  # fmt: skip
def test_a_checkpoint_is_known_by_its_first_bytes_whatever_its_name(name, write, tmp_path):
    state = snapshot(make_network("batchnorm").state_dict())
    write(state, tmp_path / name)
    assert differing(load_checkpoint(tmp_path / name), state) == []


def zip_of(name):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")

    return write


@pytest.mark.parametrize(
    ("content", "seems"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>404", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "XML"),
        (b'{"metadata": {}, "weight_map": {"w": "model-00001-of-00002.safetensors"}}', "index"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "Keras"),
        (b"GGUF\x03\0\0\0" + bytes(99), "GGUF"),
        (b"\x08\x07\x12\x07pytorch", "ONNX"),
        (b"\x93NUMPY\x01\0", "NumPy"),
        (b"\x1f\x8b\x08" + bytes(20), "unpack"),
        (bytes(257) + b"ustar\x0000", "unpack"),
        (pickle.dumps({"w": [0.5]}), "pickle that torch.save didn't write"),
        (b"w = 3\n", "it begins with b'w = 3"),
        (zip_of("arr_0.npy"), "torch.save didn't write"),
        (zip_of("archive/constants.pkl"), "TorchScript"),
        (b"PK\x03\x04", "damaged"),
        (struct.pack("<Q", 40) + b'{"w": ', "get it again"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_it_seems_to_be(content, seems, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    with pytest.raises(InputError) as refused:
        load_checkpoint(path)
    assert seems in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_folder_is_refused_with_what_is_in_it(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"is a folder, with config\.json, model\.safetensors in"):
        load_checkpoint(tmp_path)


def test_a_surface_is_no_checkpoint(tmp_path):
    make_surface("no-norm").save(tmp_path / "s.safetensors")
    with pytest.raises(InputError, match=r"BezierSurface\.load"):
        load_checkpoint(tmp_path / "s.safetensors")


def test_a_file_without_tensors_is_refused(tmp_path):
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="holds no tensors"):
        load_checkpoint(tmp_path / "none.safetensors")


# --- which state dict is meant --------------------------------------------------------------------


class Configuration(dict):
    """A subclass of dict, as configurations are."""


class Run:
    """An object of a project's own."""

    def __init__(self):
        self.items, self.lr = 3, 0.1


def moved(state):
    return {n: t + 1 if t.is_floating_point() else t for n, t in state.items()}


def saved(content, path):
    torch.save(content, path)
    return path


NETWORK = snapshot(make_network("batchnorm").state_dict())
AVERAGE = moved(NETWORK)


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model_state_dict", "model", "MODEL_STATE", "module", "net", "network", "params",
     "weights", "net_state_dict", "modelStateDict", "model.state_dict", "checkpoint.model"],
)  # fmt: skip
def test_a_network_is_found_under_the_usual_names(key, tmp_path):
    content = NETWORK
    for name in reversed(key.split(".")):
        content = {name: content, "epoch": 3, "mean": torch.zeros(3)}
    network = make_network("batchnorm")
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.zeros(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    content |= {"optimizer": optimizer.state_dict(), "rng_state": torch.get_rng_state()}
    assert differing(load_checkpoint(saved(content, tmp_path / "c.pt")), NETWORK) == []


@pytest.mark.parametrize(
    ("raw", "average"),
    [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("params", "params_ema"),
     ("net", "ema"), ("state_dict", "ema_state_dict"), ("model", "swa_model"),
     ("state_dict", "best_state_dict")],
)  # fmt: skip
def test_an_average_beside_the_network_is_said_and_read_on_demand(raw, average, tmp_path):
    path = saved({average: AVERAGE, raw: NETWORK, "epoch": 3}, tmp_path / "c.pt")
    with pytest.warns(UserWarning, match=f"'{raw}', .*key='{average}'") as caught:
        assert differing(load_checkpoint(path), NETWORK) == []
    assert caught[0].filename == __file__
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
        {"generator": NETWORK, "discriminator": {"w": torch.zeros(1)}},
        {"encoder": NETWORK},
        {"best": NETWORK, "last": AVERAGE},
        {"ema": AVERAGE, "swa": AVERAGE},
        {"ema": AVERAGE, "model": make_network("no-norm")},
        {"1": NETWORK},
    ],
)
def test_which_of_several_is_not_guessed(content, tmp_path):
    with pytest.raises(InputError, match=r"choose with key= one of '[\w.]+' \(\d+ entries\)"):
        load_checkpoint(saved(content, tmp_path / "c.pt"))


def test_a_key_is_a_dotted_path_of_names_that_may_have_dots(tmp_path):
    content = {"nets": {"a.b": {"c": NETWORK}}, "d.e": AVERAGE, "epoch": 3}
    path = saved(content, tmp_path / "c.pt")
    assert differing(load_checkpoint(path, key="nets.a.b.c"), NETWORK) == []
    assert differing(load_checkpoint(path, key="d.e"), AVERAGE) == []
    with pytest.raises(InputError, match=r"no key 'x\.y'.*'nets' \(dictionary of 1\)"):
        load_checkpoint(path, key="x.y")
    with pytest.raises(InputError, match="no state dict at 'epoch'; there is an object, int"):
        load_checkpoint(path, key="epoch")


def test_a_safetensors_file_has_no_keys(tmp_path):
    save_file(NETWORK, tmp_path / "c.safetensors")
    with pytest.raises(InputError, match="no key 'ema'"):
        load_checkpoint(tmp_path / "c.safetensors", key="ema")


def test_weights_in_a_dictionary_of_weights_are_not_passed_over(tmp_path):
    path = saved({**NETWORK, "ema": AVERAGE}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="'ema'"):
        load_checkpoint(path)
    assert differing(load_checkpoint(path, key="ema"), AVERAGE) == []


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


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_beside_the_weights_does_not_run(is_zip, tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "trap.pt"
    content = {"model": NETWORK, "trap": Trap(sprung)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with contextlib.suppress(InputError):
        assert differing(load_checkpoint(path), NETWORK) == []
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (make_network("no-norm"), "torch.nn.modules.container.Sequential"),
        ({"model": make_network("no-norm"), "epoch": 3}, "torch.nn.modules.container.Sequential"),
        ({"w": np.zeros(2)}, "numpy"),
        ({"w": torch.zeros(2), "c": Run()}, "Run"),
        ({"model": NETWORK, "tail": collections.deque([1])}, "collections.deque"),
    ],
)
def test_what_can_not_be_read_is_refused_with_the_name_of_its_class(content, name, tmp_path):
    with pytest.raises(InputError, match=r"torch\.save\(|without them") as refused:
        load_checkpoint(saved(content, tmp_path / "c.pt"))
    assert name in str(refused.value)


# --- what is in it --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
    ],
)
def test_prefixes_of_wrappers_are_removed_from_files_of_other_programs(wrap, tmp_path):
    torch.save({"model": wrap(NETWORK)}, tmp_path / "c.pt")
    save_file(wrap(NETWORK), tmp_path / "c.safetensors")
    save_checkpoint(wrap(NETWORK), tmp_path / "ours.safetensors")
    assert differing(load_checkpoint(tmp_path / "c.pt"), NETWORK) == []
    assert differing(load_checkpoint(tmp_path / "c.safetensors"), NETWORK) == []
    assert differing(load_checkpoint(tmp_path / "ours.safetensors"), wrap(NETWORK)) == []


def test_the_average_of_a_run_loads_into_the_network_itself(tmp_path):
    network = make_network("batchnorm")
    path = saved(AveragedModel(nn.DataParallel(network)).state_dict(), tmp_path / "swa.pt")
    assert differing(load_checkpoint(path), snapshot(network.state_dict())) == []


@pytest.mark.parametrize(
    "state",
    [
        {f"model.{name}": tensor for name, tensor in NETWORK.items()},
        {**{f"module.{name}": tensor for name, tensor in NETWORK.items()}, "head": torch.ones(1)},
        {"n_averaged": torch.tensor(3), **NETWORK},
    ],
)
def test_other_prefixes_are_names_of_the_network(state, tmp_path):
    assert differing(load_checkpoint(saved(state, tmp_path / "c.pt")), state) == []


def test_an_extra_state_without_a_value_is_left_out(tmp_path):
    state = {**NETWORK, "0._extra_state": None, "_extra_state": None}
    assert differing(load_checkpoint(saved(state, tmp_path / "c.pt")), NETWORK) == []


@pytest.mark.parametrize("entry", [{"a": 1}, "x", None, 3, b"x", [torch.zeros(1)], np.ones(1)])
def test_an_entry_that_is_no_tensor_is_refused_by_name(entry, tmp_path):
    name = "0.scale" if entry is None else "0._extra_state"
    with pytest.raises(InputError, match=rf"no tensors: '{name}'"):
        load_checkpoint(saved({**NETWORK, name: entry}, tmp_path / "c.pt"))


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.eye(2).to_sparse(), "sparse"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (lambda: torch.empty(2, device="meta"), "meta"),
        (nn.parameter.UninitializedParameter, "UninitializedParameter"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's, of what is deprecated or a prototype
def test_a_tensor_without_plain_values_is_refused_by_name(tensor, kind, tmp_path):
    with pytest.raises(InputError, match=rf"'0\.odd'.*{kind}"):
        load_checkpoint(saved({**NETWORK, "0.odd": tensor()}, tmp_path / "c.pt"))


def test_parameters_are_loaded_as_tensors(tmp_path):
    path = saved(dict(make_network("no-norm").named_parameters()), tmp_path / "c.pt")
    assert not any(tensor.requires_grad for tensor in load_checkpoint(path).values())


@pytest.mark.parametrize("escape", ["\x1b[2J", "\x9b1m", "\u202e", "\r"])
def test_names_in_a_file_send_nothing_to_the_terminal(escape, tmp_path):
    contents = [{escape: NETWORK, f"b{escape}": NETWORK}, {"w": torch.zeros(1), escape: 3}]
    contents += [{escape: torch.eye(2).to_sparse()}, {escape: 3}]
    for content in contents:
        with pytest.raises(InputError) as refused:
            load_checkpoint(saved(content, tmp_path / "c.pt"))
        assert str(refused.value).isprintable()
    path = saved({"model": NETWORK, f"ema{escape}": AVERAGE}, tmp_path / "c.pt")
    with pytest.warns(UserWarning, match="ema") as caught:
        load_checkpoint(path)
    assert str(caught[0].message).isprintable()
    for error in (InputError(f"a{escape}b"), DivergenceError(escape), WriteError(escape)):
        assert str(error).isprintable()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_of_a_run_come_back_bit_for_bit(name, tmp_path):
    networks = {epoch: make_network(name, seed=epoch).state_dict() for epoch in (3, 12, 7)}
    save_trajectory(networks, tmp_path / "run.safetensors", {"seed": 5})
    found = load_trajectory(tmp_path / "run.safetensors")
    assert list(found) == [3, 12, 7]
    for epoch, state in networks.items():
        assert list(found[epoch]) == list(state)
        assert differing(found[epoch], state) == []
    assert read_header(tmp_path / "run.safetensors")["seed"] == 5


def test_a_checkpoint_is_not_the_networks_of_a_run(tmp_path):
    save_checkpoint(make_network("no-norm").state_dict(), tmp_path / "one.safetensors")
    with pytest.raises(InputError, match="holds no networks of a run"):
        load_trajectory(tmp_path / "one.safetensors")
