"""Checkpoints: state dicts in files of safetensors or torch.save, read without running any code."""

import contextlib
import hashlib
import json
import pickletools
import re
import threading
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fourfold.atomic import atomic_path
from fourfold.errors import DivergenceError, InputError, printable
from fourfold.layout import StateDict, find_ties
from fourfold.untrusted import (
    check_fields,
    parse_object,
    reading,
    reason,
    require_file,
)

_HEADER = "fourfold"  # the one metadata key we write; its value is JSON


def state_hash(state: StateDict) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of a state dict, whatever its order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_checkpoint(
    state: StateDict, path: str | Path, metadata: Mapping[str, Any] | None = None
) -> str:
    """Save a state dict as safetensors, completely or not at all.

    Tied tensors are stored once and named in the header. `metadata` holds JSON values.

    Returns:
        The `state_hash` of what was saved, which is in the header as well.

    Raises:
        DivergenceError: if a tensor holds a NaN or an infinity.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DivergenceError(
                f"not saving {path}: tensor {name!r} holds a NaN or an infinity. "
                "Training diverged; lower the learning rate or clip the gradient."
            )
    tied = find_ties([state], ["the network"])
    sha256 = state_hash(state)
    header = {**(metadata or {}), "sha256": sha256, "tied": tied, "order": list(state)}
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
        if name not in tied
    }
    # What is left to share memory (buffers of a layer with two names, pieces of one block) is
    # stored in full: safetensors refuses shared memory.
    places = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    for name, tensor in tensors.items():
        if places[tensor.untyped_storage().data_ptr()] > 1:
            tensors[name] = tensor.clone()
    save_tensors(tensors, path, header)
    return sha256


def load_checkpoint(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from a file of safetensors or `torch.save`, whatever its suffix.

    No code in the file is run, and of what is no tensor nothing is made. In a training checkpoint
    the network is found under the usual names (`state_dict`, `model`, `net`, ..., also nested). If
    an average of its weights (an EMA) or another version lies beside it, a warning says so. Names
    in files of other programs lose the prefixes of DataParallel (`module.`) and torch.compile
    (`_orig_mod.`) if all have them; `_extra_state` without a value is left out.

    Args:
        path: of the file.
        key: where in a file of torch.save the state dict is, such as `state_dict_ema`; a dot leads
            to a key below (`model.ema`).

    Raises:
        InputError: if the file is missing, damaged, of another kind, not what its own header says,
            or it can't be told which state dict is meant.
    """
    path = Path(path)
    if not _is_safetensors(path):
        return _without_prefixes(_load_torch(path, key))
    if key is not None:
        raise InputError(f"{path} is a safetensors file, which has no key {key!r:.80}; leave it.")
    tensors, header = load_tensors(path)
    if str(header.get("format", "")).startswith("fourfold-"):
        raise InputError(
            f"{path} is no checkpoint: its format is {header['format']!r:.80}. A surface is read "
            "by BezierSurface.load; its networks are surface.state_dict(u, v)."
        )
    if not tensors:
        raise InputError(f"{path} holds no tensors; save model.state_dict().")
    header = {"order": list(tensors), "tied": {}} | header
    check_fields(header, {"order": list[str], "tied": dict[str, str]}, f"{path}: the header")
    tied = header["tied"]
    try:
        state = {name: tensors[tied.get(name, name)] for name in header["order"]}
    except KeyError as error:
        raise InputError(
            f"{path}: the header names tensor {str(error)[:80]}, the file lacks it."
        ) from error
    if "sha256" not in header:
        return _without_prefixes(state)
    check_fields(header, {"sha256": str}, f"{path}: the header")
    if state_hash(state) != header["sha256"]:
        raise InputError(
            f"{path}: the contents don't have the hash in the header, {header['sha256'][:64]}; "
            "the file was changed after it was written. Delete it and build it again."
        )
    return state


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the metadata that fourfold wrote into a safetensors file, empty if there is none."""
    with _open(path) as file:
        return _parse_header(file, path)


def tensor_shapes(path: str | Path) -> dict[str, tuple[str, list[int]]]:
    """Return name -> (dtype, shape) of the tensors of a safetensors file, without reading them."""
    with _open(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (piece.get_dtype(), piece.get_shape()) for name, piece in slices.items()}


def save_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, header: Mapping[str, Any]
) -> None:
    """Write tensors and a JSON header to a safetensors file, completely or not at all."""
    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, {_HEADER: json.dumps(header, sort_keys=True)})


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all tensors and the JSON header of a safetensors file.

    Raises:
        InputError: if the file is missing or damaged.
    """
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, _parse_header(file, path)


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[Any]:
    require_file(path)
    with (
        reading(path, "safetensors file", SafetensorError),
        safe_open(path, framework="pt") as opened,
    ):
        yield opened


def _parse_header(file: Any, path: str | Path) -> dict[str, Any]:
    return parse_object((file.metadata() or {}).get(_HEADER, "{}"), f"{path}: the header")


# --- kinds of files -------------------------------------------------------------------------------

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch.save before 1.6
_MOST_HEADER = 100_000_000  # bytes, the limit of safetensors itself; text would read as far more
_CONVERT = "read it with the library it is of, and save its tensors with torch.save"
_UNPACK = "an archive; unpack it, and give the file in it"
# How files begin that are taken for checkpoints.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run `git lfs pull`",
    b"\x89HDF": f"an HDF5 file (Keras, h5py); {_CONVERT}",
    b"GGUF": f"a GGUF file (llama.cpp); {_CONVERT}",
    b"\x93NUMPY": f"an array of NumPy; {_CONVERT}",
    b"\x08": f"a protobuf file (ONNX, TensorFlow); {_CONVERT}",
    b"PAR1": "a Parquet file, which holds a table",
    **dict.fromkeys(
        (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd"), _UNPACK
    ),
    b"\x80": "a pickle that torch.save didn't write, which may run code; if you trust it, save "
    "what is in it again: torch.save(pickle.load(open(path, 'rb')), other_path)",
    b"<": "HTML or XML, perhaps a page that says why there is no download; get the file itself",
    b"{": "JSON text; if it is the index of a checkpoint in several files, load each of them and "
    "put the dictionaries together",
}


def _is_safetensors(path: Path) -> bool:
    """Tell safetensors from torch.save by the first bytes; refuse everything else by its name."""
    try:
        inside = sorted(child.name for child in path.iterdir())
    except (OSError, ValueError):  # no folder
        require_file(path)
    else:
        raise InputError(
            f"no file at {path}: it is a folder, with {', '.join(inside[:5])[:300] or 'nothing'} "
            f"in it{' and more' * (len(inside) > 5)}. Give the one file with the weights (in a "
            "folder of Hugging Face model.safetensors or pytorch_model.bin); a checkpoint in many "
            "files (torch.distributed, orbax) has to be put together by the library it is of."
        )
    with reading(path, "checkpoint"), path.open("rb") as file:
        start = file.read(512)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _MOST_HEADER:
        return True
    if start.startswith((_ZIP, _LEGACY)):
        return False
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    seems = next((what for magic, what in _OTHERS.items() if text.startswith(magic)), None)
    if start[257:262] == b"ustar":
        seems = _UNPACK
    if not start:
        seems = "empty, perhaps of a download or a copy that was cut off; get it again"
    raise InputError(
        f"{path} is no file of safetensors or torch.save; "
        + (f"it seems to be {seems}." if seems else f"it begins with {start[:16]!r}; get it again.")
    )


# --- files of torch.save --------------------------------------------------------------------------

_CLASS = object()  # the key under which a stand-in has the name of what it stands for
_OF_TENSORS = r"torch\._utils\.|torch\.\w+Storage$|collections\.OrderedDict$"
_LOADING = threading.Lock()  # torch's list of what it makes, and warnings, are global


def _load_torch(path: Path, key: str | None) -> dict[str, Tensor]:
    others: set[str] = set()
    try:
        with _LOADING, path.open("rb") as file, warnings.catch_warnings():
            # Of pickle protocols and kinds of tensors: if they are not supported, it is said below.
            warnings.simplefilter("ignore")
            others = _names_of_no_tensors(file)
            file.seek(0)
            stand_ins = [(_stand_in(name), name) for name in others]
            with torch.serialization.safe_globals(stand_ins):
                loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files end in errors of many kinds, IndexError among them
        # The context of an UnpicklingError of torch is the reason, without advice for programmers.
        cause = error.__context__ if isinstance(error.__context__, UnpicklingError) else error
        names = f"; it names {', '.join(sorted(others)[:5])[:200]}" if others else ""
        raise InputError(
            f"{path} can't be read as tensors alone ({reason(cause)}{names}). Get it again if it "
            "is damaged; if you trust it, save the tensors again: torch.save(torch.load(path, "
            "weights_only=False)['model'], other_path), where 'model' is the key of a state dict; "
            "of a module or TorchScript archive, save its state_dict()."
        ) from error
    return _checked(_choose(loaded, path, key), path)


def _names_of_no_tensors(file: BinaryIO) -> set[str]:
    """Return the classes and functions that a pickle names and torch would refuse to make."""
    if file.read(4) == _ZIP:
        with zipfile.ZipFile(file) as archive:
            inside = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in inside:
            raise ValueError("it is a TorchScript archive")
        if "data.pkl" not in inside:
            raise ValueError("it is a zip archive that torch.save didn't write")
        file.seek(0)
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    file.seek(0)
    pickles = (pickletools.genops(file) for _ in range(4))  # format, version, system, object
    found = {tuple(x.split(" ")) for ops in pickles for op, x, _ in ops if op.name == "GLOBAL"}
    # Files of torch.save have the names of Python 2.
    of_3 = (NAME_MAPPING.get(x, (IMPORT_MAPPING.get(x[0], x[0]), x[1])) for x in found)
    return {name for name in map(".".join, of_3) if not re.match(_OF_TENSORS, name)}


def _stand_in(name: str) -> type:
    """Return a class that torch makes in place of one that a pickle names: inert, never imported.

    Arguments, configurations and numbers of NumPy lie beside the weights in many checkpoints. The
    real classes can't be allowed: `numpy.dtype`, for one, takes sizes and pointers from the file.
    """
    if name.startswith(("numpy.", "_io.")):  # whose state is a tuple
        return type(name, (), {"__init__": _ignore, "__setstate__": _ignore})
    # torch sets the items of plain dictionaries alone; configurations are often subclasses.
    return type(name, (), {"__new__": lambda cls, *_: OrderedDict({_CLASS: name})})


def _ignore(*_: object) -> None:
    pass


# --- which state dict is meant --------------------------------------------------------------------

# What the letters of a key are made of, whatever its case and separators: MODEL_STATE, net.weights.
_NETWORK = r"model|module|network|net|state|dict|params?|parameters|weights?|checkpoint|ckpt"
_AVERAGE = rf"{_NETWORK}|ema|swa|averaged?|avg|shadow"
_MOST_LEVELS = 5  # of dictionaries in each other
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
_COUNTER = "n_averaged"  # which AveragedModel has beside its `module.`


def _choose(loaded: Any, path: Path, key: str | None) -> dict[Any, Any]:
    """Return the state dict that is meant; warn if another version of the network is beside it."""
    if not isinstance(key, str | None):
        raise InputError(f"key is {key!r:.80}; give a dotted path of names, such as 'model.ema'.")
    there = loaded if key is None else _at(loaded, key)
    if key is not None and there is None:
        raise InputError(f"{path} has no key {key!r:.80}; it is {_description(loaded)}.")
    found = _find(there, key or "")
    if not found:
        raise InputError(
            f"{path} holds no state dict{f' at {key!r:.80}' * (key is not None)}; there is "
            f"{_description(there)}. Save one: torch.save(model.state_dict(), path)."
        )
    below = {name: name.removeprefix(key or "") for name in found}
    usual = [name for name in found if _is_made_of(below[name], _NETWORK)]
    averages = [n for n in found if n not in usual and _is_made_of(below[n], _AVERAGE)]
    is_alone = len(found) == len(averages) == 1 and not any(
        _is_made_of(str(name), _NETWORK)
        for name in _items(there)  # the network, but unreadable
    )
    if len(usual) != 1 and not is_alone:
        choices = _listed({name: f"{len(state)} entries" for name, state in found.items()})
        raise InputError(
            f"{path}: can't tell which state dict is meant; choose with key= one of {choices}. "
            f"There is {_description(there)}."
        )
    chosen = (usual or averages)[0]
    same = [n for n in found if n in averages or found[n].keys() == found[chosen].keys()]
    if others := [name for name in same if name != chosen]:
        note = f"beside it is {', '.join(others)[:200]}; key={others[0]!r:.80} reads that."
    else:
        note = "which is an average of weights; the weights themselves are not in the file."
    if others or not usual:
        text = f"{path}: the state dict was read from {chosen!r:.80}, {note}"
        warnings.warn(printable(text), stacklevel=4)
    return found[chosen]


def _is_made_of(name: str, words: str) -> bool:
    letters = re.sub(r"[\W\d_]", "", name.lower())
    return not name or bool(re.fullmatch(rf"(?:{words})+", letters))


def _items(value: Any) -> dict[Any, Any]:
    """Return what is in a dictionary, nothing of anything else."""
    if not isinstance(value, dict):
        return {}
    # Not value.items(): a file can give an OrderedDict an attribute of that name.
    return {key: item for key, item in dict.items(value) if key is not _CLASS}


def _find(value: Any, name: str, level: int = 0) -> dict[str, dict[Any, Any]]:
    """Return dotted key -> state dict, of those in nested dictionaries."""
    found: dict[str, dict[Any, Any]] = {}
    items = _items(value)
    for key, child in items.items():
        if isinstance(key, str) and level < _MOST_LEVELS:
            found |= _find(child, f"{name}.{key}" if name else key, level + 1)
    tensors = sum(isinstance(child, Tensor) for child in items.values())
    # A mean and a deviation beside the network make no state dict of what they are in.
    return (
        {name: items} if tensors and tensors >= max(map(len, found.values()), default=0) else found
    )


def _at(value: Any, key: str) -> Any:
    """Return the value at a dotted key, None if there is none; keys may have dots themselves."""
    items = _items(value)
    if key in items:
        return items[key]
    heads = [key[: dot.start()] for dot in re.finditer(r"\.", key)]
    below = (_at(items[head], key[len(head) + 1 :]) for head in heads if head in items)
    return next((found for found in below if found is not None), None)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return value[_CLASS] if _CLASS in value else f"dictionary of {len(value)}"
    return type(value).__name__


def _listed(texts: Mapping[Any, str]) -> str:
    first = [f"{name!r:.80} ({text:.80})" for name, text in list(texts.items())[:8]]
    return ", ".join(first) + f" and {len(texts) - 8} more" * (len(texts) > 8)


def _description(value: Any) -> str:
    kinds = {name: _kind(child) for name, child in _items(value).items()}
    return f"a dictionary with {_listed(kinds)}" if kinds else f"an object, {_kind(value)}"


def _checked(state: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    """Refuse what no network is made of: other objects, tensors without plain values."""
    state = {
        name: value
        for name, value in state.items()
        if not (value is None and str(name).rpartition(".")[2] == "_extra_state")
    }
    if strange := {n: _kind(v) for n, v in state.items() if not isinstance(v, Tensor)}:
        raise InputError(
            f"{path}: entries of the state dict are no tensors: {_listed(strange)}. Save it again "
            "without them; if it is in one of them, name that: load_checkpoint(path, key=...)."
        )
    for name, tensor in state.items():
        is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
        is_plain &= tensor.device.type == "cpu" and not tensor.is_quantized
        if not isinstance(name, str) or not is_plain or tensor.is_nested:
            kind = "nested" if tensor.is_nested else f"{tensor.layout} on {tensor.device}"
            kind = "quantized" if tensor.is_quantized else kind
            raise InputError(
                f"{path}: entry {name!r:.80} is {type(tensor).__name__}, {kind}; names must be "
                "strings, and tensors dense, with values, and not quantized. Convert it "
                "(dequantize(), to_dense(), full_tensor()), and save it again."
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers that all names have; one wrapper may be in the other."""
    names = [name for name in state if name != _COUNTER]
    prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in names)), None)
    if not names or prefix is None:
        return state
    return _without_prefixes({name.removeprefix(prefix): state[name] for name in names})
