"""Laws of checkpoints: no bit changes, damage is noticed, nothing is executed."""

import pickle
import random
import struct

import pytest
import torch
from conftest import NETWORKS, differing, make_network, snapshot
from safetensors.torch import save_file
from torch import nn

from fourfold.checkpoint import load_checkpoint, read_header, save_checkpoint, state_hash
from fourfold.errors import DivergenceError, InputError

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
    with pytest.raises(InputError, match=r"trap\.pt can't be read as tensors alone"):
        load_checkpoint(path)
    assert not sprung.exists()


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(make_network("no-norm"), tmp_path / "module.pt")
    with pytest.raises(InputError, match=r"state_dict\(\)"):
        load_checkpoint(tmp_path / "module.pt")


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


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_torch_files_are_refused_or_read_but_never_crash(tmp_path):
    path, draw = tmp_path / "damaged.pt", random.Random(0)
    outcomes = set()
    for _ in range(150):
        content = bytearray(pickle.dumps({"a": [1, 2, 3], "b": "x"}, protocol=2))
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
