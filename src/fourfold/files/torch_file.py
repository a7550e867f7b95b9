"""Files of torch.save, from whatever program, read without running any code in them."""

import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from fourfold.errors import InputError, printable
from fourfold.files.reading import reading, reason, require_file

# --- kinds of files -------------------------------------------------------------------------------

_OF_TORCH = (b"PK\x03\x04", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.")
_MOST_HEADER = 100_000_000  # bytes, the limit of safetensors itself; text would read as far more
# How files begin that are taken for checkpoints.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run `git lfs pull`",
    **dict.fromkeys(
        (b"\x89HDF", b"GGUF", b"\x93NUMPY", b"\x08"),
        "a file of Keras, llama.cpp, NumPy or ONNX; read it with that library, and save its "
        "tensors with torch.save",
    ),
    **dict.fromkeys(
        (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf"),
        "an archive; unpack it, and give the file in it",
    ),
    b"\x80": "a pickle that torch.save didn't write, which may run code; if you trust it, save "
    "what is in it again: torch.save(pickle.load(open(path, 'rb')), other_path)",
    b"<": "HTML or XML, perhaps a page that says why there is no download; get the file itself",
    b"{": "JSON text; if it is the index of a checkpoint in several files, load each of them and "
    "put the dictionaries together",
    b"": "cut off, or of another kind; get it again",
}


def is_safetensors(path: Path) -> bool:
    """Tell safetensors from torch.save by the first bytes; refuse everything else by its name."""
    require_file(
        path,
        f"no file at {path}; give the one file with the weights (in a folder of Hugging Face "
        "model.safetensors or pytorch_model.bin).",
    )
    with reading(path, "checkpoint"), path.open("rb") as file:
        start = file.read(512)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _MOST_HEADER:
        return True
    if start.startswith(_OF_TORCH):
        return False
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    seems = next(what for magic, what in _OTHERS.items() if text.startswith(magic))
    raise InputError(
        f"{path} is no file of safetensors or torch.save: it begins with {start[:16]!r}, and seems "
        f"to be {seems}."
    )


# --- files of torch.save --------------------------------------------------------------------------

_CLASS = "class in the file"  # the attribute with the name of what a stand-in stands for
_LOADING = threading.Lock()  # torch's list of what it makes, and warnings, are global


def load_torch(path: Path, key: str | None) -> dict[str, Tensor]:
    """Return the state dict in a file of torch.save; see `load_checkpoint`."""
    stand_ins: dict[str, type] = {}
    while True:
        try:
            with (
                _LOADING,
                path.open("rb") as file,  # of a path, torch takes the suffix as the format
                warnings.catch_warnings(action="ignore"),
                torch.serialization.safe_globals([(c, name) for name, c in stand_ins.items()]),
            ):
                loaded = torch.load(file, map_location="cpu", weights_only=True)
            break
        except Exception as error:  # damaged files end in errors of many kinds, IndexError too
            # The context of an UnpicklingError is the reason, without advice for programmers.
            cause = error.__context__ if isinstance(error.__context__, UnpicklingError) else error
            unknown = re.search(r"global: GLOBAL (\S+) was not an allowed", str(cause))
            name = unknown[1] if unknown else ""
            name = name if "." in name else f"builtins.{name}"
            if unknown and name not in stand_ins and len(stand_ins) < 100:
                stand_ins[name] = _stand_in(name)
                continue
            raise InputError(
                f"{path} can't be read as tensors alone ({reason(cause)}; classes in it: "
                f"{', '.join(stand_ins)[:200] or 'none'}). Get it again if it is damaged; if you "
                "trust it, save the tensors again: torch.save(torch.load(path, weights_only=False)"
                "['model'], other_path), where 'model' is the key of a state dict; of a module or "
                "TorchScript archive, save its state_dict()."
            ) from error
    return _checked(_choose(loaded, path, key), path)


def _stand_in(name: str) -> type:
    """Return a class that torch makes in place of one that a pickle names: inert, never imported.

    Arguments, configurations and numbers of NumPy lie beside the weights in many checkpoints. The
    real classes can't be allowed: `numpy.dtype`, for one, takes sizes and pointers from the file.
    """

    def ignore(*_: object) -> None:
        pass

    if name.startswith(("numpy.", "_io.")):  # whose state is a tuple
        return type(name, (), {"__init__": ignore, "__setstate__": ignore})

    # torch sets the items of plain dictionaries alone; configurations are often subclasses.
    def make(cls: type, *_: object) -> OrderedDict[Any, Any]:
        made: OrderedDict[Any, Any] = OrderedDict()
        vars(made)[_CLASS] = name
        return made

    return type(name, (), {"__new__": make})


# --- which state dict is meant --------------------------------------------------------------------

# What the letters of a key are made of, whatever its case and separators: MODEL_STATE, net.weights.
_NETWORK = r"model|module|network|net|state|dict|params?|parameters|weights?|checkpoint|ckpt"
_AVERAGE = rf"{_NETWORK}|ema|swa|averaged?|avg|shadow"
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
_COUNTER = "n_averaged"  # which AveragedModel has beside its `module.`


def _choose(loaded: Any, path: Path, key: str | None) -> dict[Any, Any]:
    """Return the state dict that is meant; warn if another version of the network is beside it."""
    there = loaded if key is None else _at(loaded, key)
    found = _find(there, key or "")
    if not found:
        at = "" if key is None else f" at {key!r:.80}"
        raise InputError(
            f"{path} holds no state dict{at}; there is {_description(loaded)}. Save one: "
            "torch.save(model.state_dict(), path)."
        )
    below = {name: name.removeprefix(key or "") for name in found}
    usual = [name for name in found if _is_made_of(below[name], _NETWORK)]
    averages = [n for n in found if n not in usual and _is_made_of(below[n], _AVERAGE)]
    has_network = any(_is_made_of(str(name), _NETWORK) for name in _items(there))
    if len(usual) != 1 and (has_network or not len(found) == len(averages) == 1):
        choices = _listed({name: f"{len(state)} entries" for name, state in found.items()})
        raise InputError(
            f"{path}: can't tell which state dict is meant; choose with key= one of {choices}. "
            f"There is {_description(there)}."
        )
    chosen = (usual or averages)[0]
    same = [n for n in found if n in averages or found[n].keys() == found[chosen].keys()]
    others = [name for name in same if name != chosen]
    note = "which is an average of weights; the weights themselves are not in the file."
    if others:
        note = f"beside it is {', '.join(others)[:200]}; key={others[0]!r:.80} reads that."
    if others or not usual:
        text = f"{path}: the state dict was read from {chosen!r:.80}, {note}"
        warnings.warn(printable(text), stacklevel=4)
    return found[chosen]


def _is_made_of(name: str, words: str) -> bool:
    letters = re.sub(r"[\W\d_]", "", name.lower())
    return not name or bool(re.fullmatch(rf"(?:{words})+", letters))


def _items(value: Any) -> dict[Any, Any]:
    # Not value.items(): a file can give an OrderedDict an attribute of that name.
    return dict(dict.items(value)) if isinstance(value, dict) else {}


def _at(value: Any, key: str) -> Any:
    """Return the value at a dotted key, None if there is none; keys may have dots themselves."""
    items = _items(value)
    below = (_at(v, key[len(k) + 1 :]) for k, v in items.items() if key.startswith(f"{k}."))
    return items[key] if key in items else next((v for v in below if v is not None), None)


def _find(value: Any, name: str, level: int = 0) -> dict[str, dict[Any, Any]]:
    """Return dotted key -> state dict, of those in nested dictionaries."""
    found: dict[str, dict[Any, Any]] = {}
    items = _items(value)
    for key, child in items.items():
        if isinstance(key, str) and level < 5:
            found |= _find(child, f"{name}.{key}" if name else key, level + 1)
    tensors = sum(isinstance(child, Tensor) for child in items.values())
    # A mean and a deviation beside the network make no state dict of what they are in.
    is_state = tensors and tensors >= max(map(len, found.values()), default=0)
    return {name: items} if is_state else found


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{type(value).__name__}, {value.layout}, {value.dtype} on {value.device}"
    name: str = getattr(value, _CLASS, type(value).__name__)
    return f"dictionary of {len(value)}" if name in ("dict", "OrderedDict") else name


def _listed(texts: Mapping[Any, str]) -> str:
    first = [f"{name!r:.80} ({text:.80})" for name, text in list(texts.items())[:8]]
    return ", ".join(first) + f" and {len(texts) - 8} more" * (len(texts) > 8)


def _description(value: Any) -> str:
    kinds = {name: _kind(child) for name, child in _items(value).items()}
    return f"a dictionary with {_listed(kinds)}" if kinds else f"an object, {_kind(value)}"


def _checked(state: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    """Refuse what no network is made of: other objects, tensors without plain values."""
    odd = {name: _kind(v) for name, v in state.items() if not _is_plain(v) or type(name) is not str}
    left_out = [name for name in odd if str(name).endswith("_extra_state") and state[name] is None]
    if len(odd) > len(left_out):
        raise InputError(
            f"{path}: entries of the state dict are no plain tensors: {_listed(odd)}. They must be "
            "dense, with values, neither quantized nor nested, and their names texts. Convert "
            "them (dequantize(), to_dense()) or leave them out, and save it again; if the network "
            "is in one of them, name that: load_checkpoint(path, key=...)."
        )
    return {name: tensor.detach() for name, tensor in state.items() if name not in left_out}


def _is_plain(value: Any) -> bool:
    return (
        type(value) in (Tensor, nn.Parameter)
        and (value.layout, value.device.type) == (torch.strided, "cpu")
        and not (value.is_nested or value.is_quantized)
    )


def without_prefix(
    state: dict[str, Tensor], prefixes: Sequence[str] = PREFIXES
) -> dict[str, Tensor] | None:
    """Remove the first of the prefixes of wrappers that all names have; None if there is none."""
    names = [name for name in state if name != _COUNTER]
    prefix = next((p for p in prefixes if all(name.startswith(p) for name in names)), None)
    if not names or prefix is None:
        return None
    return {name.removeprefix(prefix): state[name] for name in names}
