"""Files of torch.save, from whatever program, read without running any code in them."""

import pickletools
import re
import threading
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from fourfold.errors import InputError, printable
from fourfold.files.reading import reading, reason, require_file

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


def is_safetensors(path: Path) -> bool:
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


def load_torch(path: Path, key: str | None) -> dict[str, Tensor]:
    """Return the state dict in a file of torch.save; see `load_checkpoint`."""
    others: set[str] = set()
    try:
        with _LOADING, path.open("rb") as file, warnings.catch_warnings():
            # Of pickle protocols and kinds of tensors: if they are not supported, it is said below.
            warnings.simplefilter("ignore")
            others = _names_of_no_tensors(file)
            file.seek(0)
            with torch.serialization.safe_globals([(_stand_in(name), name) for name in others]):
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
    found = {
        str(x).partition(" ")[::2] for ops in pickles for op, x, _ in ops if op.name == "GLOBAL"
    }
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


def without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers that all names have; one wrapper may be in the other."""
    names = [name for name in state if name != _COUNTER]
    prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in names)), None)
    if not names or prefix is None:
        return state
    return without_prefixes({name.removeprefix(prefix): state[name] for name in names})
