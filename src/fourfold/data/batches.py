"""Batches of tensors that lie on the device, or of a DataLoader, as inputs of a network."""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, default_collate, default_convert

from fourfold.data.inputs import (
    Input,
    Objective,
    as_input_tensors,
    copied,
    map_input,
    parts_of,
    pick,
)
from fourfold.errors import InputError, check_count
from fourfold.files.reading import reason
from fourfold.seeds import AmbientStream, derive_seed
from fourfold.surfaces.modules import batchnorm_layers, check_trainable, input_dtype

Augment = Callable[[Any, torch.Generator], Input]  # of an input as it is given
Preprocess = Callable[[Any], Input]
BATCH_SIZE = 512  # of tensors in an evaluation
_PARTS = ("batch_sampler", "sampler", "data_source", "dataset", "loader")  # of loaders, by name
Pair = tuple[Input, Input]  # the inputs and the targets of a batch


def iterate_batches(n: int, batch_size: int, smallest: int = 1) -> Iterator[slice]:
    """Yield slices that cover range(n); a last batch under `smallest` joins the one before."""
    check_count("batch_size", batch_size, 1)
    start = 0
    while start < n:
        end = min(start + batch_size, n)
        if n - end < smallest:
            end = n
        yield slice(start, end)
        start = end


def shuffled_batches(
    n: int, batch_size: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """Yield the index batches of one epoch in random order; an incomplete last batch is dropped.

    The order is drawn where `generator` is and copied to `device` once.
    """
    order = torch.randperm(n, generator=generator, device=generator.device)
    yield from to_device(order, device)[: n // batch_size * batch_size].view(-1, batch_size)


def as_device(asked: torch.device | str) -> torch.device:
    """Return the device of a name, one that PyTorch can use here."""
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"device is {asked!r}; it must be 'cpu', 'cuda' or what else torch.device takes."
        ) from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # asserted where it was built without CUDA
        raise InputError(
            f"device is {str(asked)!r}, which PyTorch can't use here ({reason(error)}); choose "
            "'cpu', or look at CUDA_VISIBLE_DEVICES."
        ) from error
    return device


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a small tensor to `device` without waiting for it."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)  # else the copy waits
    return tensor.to(device)


def to_float(images: Tensor) -> Tensor:
    """Map whole numbers up to 255 to float32 in [0, 1], booleans to 0 and 1; floats stay.

    Raises:
        InputError: if the images are complex, or have other whole numbers.
    """
    if images.is_complex():
        raise InputError(
            f"images are {images.dtype}; give uint8, or real floats, or preprocess, which makes "
            "the model's input of them."
        )
    if images.is_floating_point():
        return images
    found = images.float()
    if images.dtype == torch.bool:
        return found
    if images.dtype != torch.uint8 and found.numel():
        low, high = (float(end) for end in found.aminmax())
        if low < 0 or high > 255:
            raise InputError(
                f"images are {images.dtype} with values from {low:.0f} to {high:.0f}; whole "
                "numbers are divided by 255, so that they have to be 0 to 255. Give floats or "
                "preprocess; of numbers of tokens a dictionary, or preprocess=lambda ids: ids."
            )
    return found.div_(255)


def as_input(preprocess: Preprocess, model: nn.Module) -> Preprocess:
    """Return `preprocess` followed by a cast of floating inputs to the model's dtype."""
    dtype = input_dtype(model)

    def cast(part: Any) -> Any:
        is_cast = dtype is not None and isinstance(part, Tensor) and part.is_floating_point()
        return part.to(dtype) if is_cast else part

    return lambda given: map_input(cast, preprocess(given))


def call_model(model: Callable[..., Any], inputs: Input) -> Any:
    """Return model(x), model(*x) of a tuple, or model(**x) of a dictionary."""
    several = inputs if isinstance(inputs, (tuple, list)) else ()
    named = inputs if isinstance(inputs, Mapping) else {}
    try:
        return model(*several, **named) if several or named else model(inputs)
    except TypeError as error:
        check_taken(model, several, named, error)
        raise


def check_taken(
    model: Callable[..., Any],
    several: Sequence[Any],
    named: Mapping[str, Any],
    cause: Exception | None = None,
) -> None:
    """Refuse parts of an input that the model's forward doesn't take, such as labels."""
    try:
        inspect.signature(getattr(model, "forward", model)).bind(*several, **named)
    except TypeError as error:
        kind = f"a dictionary of {', '.join(map(repr, named))}" if named else ""
        raise InputError(
            f"an input is {kind or f'a tuple of {len(several)}'}, for "
            f"model({'**x' if named else '*x'}), but the model's forward refuses these: {error}. "
            "Give what it takes, such as the images alone, without labels."
        ) from cause
    except ValueError:  # no signature, as of some compiled functions
        return


class Batches(ABC):
    """Examples in batches on one device.

    Attributes:
        device: where the batches are given.
        preprocess: what makes an input of them if the caller says nothing.
    """

    device: torch.device
    preprocess: Preprocess

    @property
    @abstractmethod
    def steps(self) -> int:
        """Return the batches of an epoch of training, as far as can be known before."""

    @abstractmethod
    def shuffled(self, order: torch.Generator, done: int = 0) -> Iterator[Pair]:
        """Yield the batches of one epoch of training, drawn by `order`, from the `done`th on."""

    @abstractmethod
    def in_order(self, seed: int, smallest: int = 1) -> Iterator[Pair]:
        """Yield every example once, in batches of at least `smallest`."""


class TensorBatches(Batches):
    """Batches of inputs, and of targets if there are any, that lie on the device as a whole."""

    def __init__(
        self,
        inputs: Input,
        targets: Input | None,
        batch_size: int,
        device: torch.device | str | None = None,
    ) -> None:
        """Take tensors of equal length, and move them to `device`, by default where they are."""
        first = parts_of(inputs)[0]
        self.device = first.device if device is None else as_device(device)
        self.inputs, self.targets = (
            None if x is None else map_input(lambda part: part.to(self.device), x)
            for x in (inputs, targets)
        )
        self.batch_size, self.size = batch_size, len(first)
        self.preprocess = to_float if isinstance(inputs, Tensor) else _as_given

    @property
    def steps(self) -> int:
        """Return how many complete batches there are."""
        return self.size // self.batch_size

    def shuffled(self, order: torch.Generator, done: int = 0) -> Iterator[Pair]:
        """Yield batches in random order; an incomplete last one is left out."""
        batches = shuffled_batches(self.size, self.batch_size, order, self.device)
        for position, index in enumerate(batches):
            if position >= done:  # else before the snapshot
                yield self._pick(index)

    def in_order(self, seed: int, smallest: int = 1) -> Iterator[Pair]:
        """Yield slices; a last batch under `smallest` joins the one before."""
        for batch in iterate_batches(self.size, self.batch_size, smallest):
            inputs, targets = self._pick(batch)
            yield copied(inputs), targets  # a slice is a view of the caller's tensors

    def _pick(self, index: Tensor | slice) -> Pair:
        targets = None if self.targets is None else pick(self.targets, index)
        return pick(self.inputs, index), targets


class LoaderBatches(Batches):
    """Batches of an iterable that can be iterated again, such as a DataLoader.

    Whatever it draws in the main process, from torch's, NumPy's and Python's global states or from
    its own generators, and with it what its workers draw, is fixed by a seed for each pass.
    """

    def __init__(
        self,
        loader: Any,
        convert: Callable[[Any, int], Input] | None,
        device: torch.device,
        *,
        what: str,
        divisor: int = 1,
        smallest: int = 1,
    ) -> None:
        """Take the iterable.

        Args:
            loader: gives pairs (input, target) or mappings with `labels`; with `convert` None,
                targets may be missing.
            convert: checks and converts the targets of n examples.
            device: where batches are moved to.
            what: names the iterable in messages.
            divisor: a batch of training is a multiple of it, with at least `smallest` examples for
                each of the `divisor` shares; others are left out.
            smallest: see there.
        """
        self._loader, self._convert, self.device, self._what = loader, convert, device, what
        self._divisor, self._smallest = divisor, smallest
        self.preprocess: Preprocess = _bytes_to_float
        kind = type(loader).__name__
        try:
            self._count = -1 if isinstance(loader, Iterator) else len(loader)
        except TypeError:  # also of a DataLoader whose data set has no length
            self._count = -1
        if self._count < 0:
            raise InputError(
                f"{what} is {kind}, which has no len() or can't be iterated again; give an "
                "iterable of batches that can, such as a DataLoader or a list."
            )
        if self._count == 0:
            raise InputError(f"{what} is {kind} without a batch; it needs at least one.")
        batch_size = getattr(loader, "batch_size", None)
        collate = getattr(loader, "collate_fn", default_collate)
        is_usual = collate in (default_collate, default_convert)  # another may change the number
        self._batch_size = batch_size if isinstance(batch_size, int) and is_usual else None
        self._is_last_short = self._count > 1 and not is_usual and _is_last_short(loader)
        if self._batch_size and self._batch_size % divisor:
            raise InputError(
                f"{what} gives batches of {self._batch_size}, and points_per_step is {divisor}; "
                "the batch must be a multiple of the points."
            )

    @cached_property
    def steps(self) -> int:
        """Return how many batches an epoch will use, as far as can be known before."""
        loader, sizes = self._loader, [self._batch_size or 0] * self._count
        if isinstance(loader, DataLoader) and self._batch_size and not loader.drop_last:
            sizes[-1] = _examples(loader) - (self._count - 1) * self._batch_size
        elif isinstance(loader, (list, tuple)):
            sizes = [len(parts_of(self._input(self._pair(batch)[0]))[0]) for batch in loader]
        elif not self._batch_size:
            return self._count - self._is_last_short
        steps = sum(self._is_used(k, size, sizes[0]) for k, size in enumerate(sizes))
        self._check_used(sizes, steps)
        return steps

    def shuffled(self, order: torch.Generator, done: int = 0) -> Iterator[Pair]:
        """Yield complete batches that can be divided, as the iterable gives them."""
        seed = int(torch.randint(2**63 - 1, (), generator=order, device=order.device))
        sizes: list[int] = []
        used = 0
        for inputs, targets, size in self._batches(seed):
            sizes.append(size)
            if not self._is_used(len(sizes) - 1, size, sizes[0]):
                continue
            used += 1
            if used > self.steps:
                raise InputError(
                    f"{self._what} gives more than the {self.steps} complete batches that its "
                    f"len(), {self._count}, says; let __len__ return how many there are."
                )
            if used > done:
                yield inputs, targets
        self._check_used(sizes, used)

    def in_order(self, seed: int, smallest: int = 1) -> Iterator[Pair]:
        """Yield batches as the iterable gives them; one under `smallest` is left out."""
        sizes = []
        for inputs, targets, size in self._batches(seed):
            sizes.append(size)
            if size >= smallest:
                yield inputs, targets
        self._check_given(sizes)
        if max(sizes) < smallest:
            raise InputError(
                f"{self._what} has {_shown(sizes)}; give batches of at least {smallest}."
            )

    def _batches(self, seed: int) -> Iterator[tuple[Input, Input, int]]:
        """Yield inputs, targets and size of each batch; what draws numbers draws from `seed`."""
        loader = self._loader
        if isinstance(loader, DataLoader) and loader.persistent_workers:
            # Theirs go on drawing where the last pass ended; new ones start from the seed.
            loader = copy.copy(loader)
            vars(loader)["persistent_workers"] = False
        stream, end = AmbientStream(seed, _generators(loader)), object()
        with stream():
            _set_epoch(loader, seed)
            batches = iter(loader)
        while True:
            with stream():
                batch = next(batches, end)
            if batch is end:
                return
            yield self._checked(batch)

    def _checked(self, batch: Any) -> tuple[Input, Input, int]:
        given, labels = self._pair(batch)
        inputs = self._input(given)
        size = len(parts_of(inputs)[0])
        targets = None
        if self._convert is not None:
            targets = map_input(self._moved, self._convert(_as_tuple(labels), size))
        return map_input(self._moved, inputs), targets, size

    def _input(self, given: Any) -> Input:
        return as_input_tensors(_as_tuple(given), f"the input of a batch of {self._what}")

    def _moved(self, part: Tensor) -> Tensor:
        # A copy: augmentation may write to it, and the iterable may give the same tensor again.
        return part.to(self.device, non_blocking=True, copy=True)

    def _pair(self, batch: Any) -> tuple[Any, Any]:
        if isinstance(batch, Mapping) and "labels" in batch:
            return {k: v for k, v in batch.items() if k != "labels"}, batch["labels"]
        if isinstance(batch, (tuple, list)) and len(batch) == 2:
            return batch[0], batch[1]
        if self._convert is None and isinstance(batch, (Tensor, np.ndarray, Mapping)):
            return batch, None
        if self._convert is None and isinstance(batch, (tuple, list)) and len(batch) == 1:
            return batch[0], None
        count = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        names = f" with {list(batch)}" if isinstance(batch, Mapping) else ""
        raise InputError(
            f"a batch of {self._what} is {type(batch).__name__}{count}{names}; give pairs (input, "
            "target), where an input is a tensor, a tuple or a dictionary of tensors, or "
            "dictionaries that have the target as 'labels'."
        )

    def _is_used(self, position: int, size: int, first: int) -> bool:
        """Return whether a batch of training is complete and can be divided."""
        if size % self._divisor or size // self._divisor < self._smallest:
            return False
        if self._batch_size:
            return size >= self._batch_size
        return position < self._count - 1 or (size >= first and not self._is_last_short)

    def _check_used(self, sizes: Sequence[int], used: int) -> None:
        self._check_given(sizes)
        if not used:
            raise InputError(
                f"{self._what} has {_shown(sizes)}; training needs complete ones of a multiple of "
                f"{self._divisor}, at least {self._divisor * self._smallest}."
            )

    def _check_given(self, sizes: Sequence[int]) -> None:
        if not sizes:
            raise InputError(
                f"{self._what} has len() {self._count} but gave no batch; it must give them each "
                "time that it is iterated."
            )


def _examples(loader: DataLoader[Any]) -> int:
    source: Any = loader.dataset if isinstance(loader.dataset, IterableDataset) else loader.sampler
    return len(source)


def _is_last_short(loader: Any) -> bool:
    """Return whether the last batch is made of fewer entries of a data set than the others."""
    if not isinstance(loader, DataLoader) or not loader.batch_size or loader.drop_last:
        return False
    return _examples(loader) % loader.batch_size > 0


def _shown(sizes: Sequence[int]) -> str:
    different = sorted(set(sizes))
    listed = ", ".join(map(str, different[:5])) + (", ..." if len(different) > 5 else "")
    return f"{len(sizes)} batches of {listed} examples"


def is_loader(data: Any) -> bool:
    """Return whether data are an iterable of batches, rather than tensors, arrays or numbers."""
    if isinstance(data, (tuple, list)):
        return all(_is_batch(item) for item in data)
    is_known = isinstance(data, (Tensor, np.ndarray, Mapping, str, bytes))
    return not is_known and isinstance(data, (Iterable, DataLoader))


def training_batches(
    inputs: Any,
    labels: Any,
    objective: Objective,
    model: nn.Module,
    batch_size: int | None,
    *,
    default: int,
    what: str = "images",
    points: int = 1,
    device: torch.device | str | None = None,
) -> Batches:
    """Return the batches of a training run, whose steps divide them among `points` networks.

    Args:
        inputs: one entry per example, or an iterable of batches.
        labels: one per example; None beside an iterable.
        objective: checks the targets.
        model: is checked to be trainable on such batches.
        batch_size: of tensors.
        default: of it.
        what: names tensors in messages.
        points: networks that get an equal share of each batch.
        device: where to move them; by default tensors stay, and batches go where the model is.
    """
    if labels is None and is_loader(inputs):
        check_batch_size(batch_size, inputs)
        check_trainable(model, 0, "")
        smallest = 2 if batchnorm_layers(model) else 1
        return LoaderBatches(
            inputs, objective.targets, _device(device, model), what="the training data",
            divisor=points, smallest=smallest,
        )  # fmt: skip
    inputs = _tensors(inputs, what)
    n, size = len(parts_of(inputs)[0]), default if batch_size is None else batch_size
    targets = objective.targets(labels, n)
    if n == 0:
        raise InputError("there are no training images; the split is empty.")
    if not isinstance(size, Integral) or not 1 <= size <= n:
        raise InputError(f"batch_size is {size}; it must be from 1 to {n}, the images given.")
    if size % points:
        raise InputError(
            f"batch_size is {size} and points_per_step {points}; "
            "the batch must be a multiple of the points."
        )
    both = f"batch_size and points_per_step are both {size}, one image per point"
    check_trainable(model, size // points, both if points > 1 else f"batch_size is {size}")
    return TensorBatches(inputs, targets, size, device)


def input_batches(
    inputs: Any,
    model: nn.Module,
    batch_size: int | None,
    *,
    what: str = "images",
    device: torch.device | str | None = None,
) -> Batches:
    """Return batches without targets, of tensors or of an iterable; see `training_batches`."""
    if is_loader(inputs) or _is_list_of_batches(inputs):
        return LoaderBatches(inputs, None, _device(device, model), what=what)
    if isinstance(inputs, tuple):
        check_taken(model, inputs, {})
    size = BATCH_SIZE if batch_size is None else batch_size
    return TensorBatches(_tensors(inputs, what), None, size, device)


def split_batches(
    splits: Any,
    objective: Objective,
    model: nn.Module,
    batch_size: int | None,
    device: torch.device | str | None = None,
) -> dict[str, Batches]:
    """Return name -> batches of the splits of an evaluation, none of them empty, on one device.

    By default that is the first split's, or the model's if that split is an iterable.
    """
    if not isinstance(splits, Mapping) or not splits:
        raise InputError(
            f"splits is {'empty' if isinstance(splits, Mapping) else type(splits).__name__}; give "
            "at least one name -> (images, labels), such as {'test': (images, labels)}, or an "
            "iterable of batches, such as a DataLoader."
        )
    checked: dict[str, Batches] = {}
    for name, split in splits.items():
        what = f"split {name!r}"
        if not _is_pair(split) and is_loader(split):
            device = _device(device, model)
            checked[name] = LoaderBatches(split, objective.targets, device, what=what)
            continue
        if not _is_pair(split):
            raise InputError(
                f"{what} is {type(split).__name__}; give a pair (images, labels) of tensors, or an "
                "iterable of batches, such as a DataLoader."
            )
        inputs = _tensors(split[0], f"images of {what}")
        n = len(parts_of(inputs)[0])
        if n == 0:
            raise InputError(f"{what} has 0 images; it needs at least one.")
        targets = objective.targets(split[1], n, f"labels of {what}")
        size = BATCH_SIZE if batch_size is None else batch_size
        batches = checked[name] = TensorBatches(inputs, targets, size, device)
        device = batches.device
    return checked


def check_batch_size(batch_size: int | None, *data: Any) -> None:
    """Refuse a batch size where all data are iterables of batches."""
    if batch_size is not None and all(map(have_their_size, data)):
        raise InputError(
            f"batch_size is {batch_size}, but the data are an iterable of batches, which have "
            "their size; leave batch_size out."
        )


def have_their_size(data: Any) -> bool:
    """Return whether data are an iterable of batches, or what `input_batches` made of one."""
    return isinstance(data, LoaderBatches) or is_loader(data) or _is_list_of_batches(data)


def pass_seed(seed: int) -> int:
    """Return the seed of what an iterable draws in an evaluation: the same for each network."""
    return derive_seed(seed, "evaluation")


def _as_given(inputs: Input) -> Input:
    return inputs


def _bytes_to_float(inputs: Input) -> Input:
    """Map bytes and booleans as `to_float`; other integers of a loader may be numbers of tokens."""
    if not isinstance(inputs, Tensor):
        return inputs
    is_image = inputs.dtype in (torch.uint8, torch.bool) or inputs.is_complex()
    return to_float(inputs) if is_image else inputs


def _is_list_of_batches(inputs: Any) -> bool:
    """Return whether inputs without targets are a list of batches: an image has 3 dimensions."""
    return (
        isinstance(inputs, list)
        and len(inputs) > 0
        and all(isinstance(x, (Tensor, np.ndarray)) and x.ndim > 3 for x in inputs)
    )


def _as_tuple(values: Any) -> Any:
    """Return a list of tensors, as a DataLoader makes of a tuple, as a tuple."""
    is_tuple = isinstance(values, list) and all(isinstance(part, Tensor) for part in values)
    return tuple(values) if is_tuple else values


def _tensors(inputs: Any, what: str) -> Input:
    if not isinstance(inputs, (Tensor, np.ndarray, list, tuple, Mapping)):
        raise InputError(
            f"{what} are {type(inputs).__name__}; give a tensor or a NumPy array of numbers, a "
            "tuple or a dictionary of them, or, without labels, an iterable of batches, such as a "
            "DataLoader."
        )
    return as_input_tensors(inputs, what)


def _is_batch(item: Any) -> bool:
    if isinstance(item, (tuple, list)):
        return any(isinstance(part, (Tensor, np.ndarray, Mapping, tuple)) for part in item)
    return isinstance(item, Mapping)


def _is_pair(split: Any) -> bool:
    """Return whether a split is (inputs, targets), rather than a list of two batches."""
    if not isinstance(split, (tuple, list)) or len(split) != 2:
        return False
    return isinstance(split, tuple) or not is_loader(split)


def _device(asked: torch.device | str | None, model: nn.Module) -> torch.device:
    if asked is not None:
        return as_device(asked)
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _parts(loader: Any) -> Iterator[Any]:
    """Yield a loader, its samplers and its data sets, also those inside of others, each once."""
    seen, waiting = set(), [loader]
    while waiting:
        owner = waiting.pop()
        if owner is None or id(owner) in seen:
            continue
        seen.add(id(owner))
        yield owner
        waiting += [getattr(owner, name, None) for name in _PARTS]
        several = getattr(owner, "datasets", None)  # of ConcatDataset, StackDataset, ChainDataset
        several = several.values() if isinstance(several, Mapping) else several
        waiting += several if isinstance(several, Iterable) else ()


def _generators(loader: Any) -> list[torch.Generator]:
    """Return the generators of a loader's parts, each once."""
    found: dict[int, torch.Generator] = {}
    for owner in _parts(loader):
        values = getattr(owner, "__dict__", {}).values()
        found |= {id(value): value for value in values if isinstance(value, torch.Generator)}
    return list(found.values())


def _set_epoch(loader: Any, seed: int) -> None:
    """Give samplers that draw by an epoch's number, such as DistributedSampler, one of the seed."""
    batches = getattr(loader, "batch_sampler", None)
    for sampler in (batches, getattr(batches, "sampler", None), getattr(loader, "sampler", None)):
        if callable(set_epoch := getattr(sampler, "set_epoch", None)):
            set_epoch(seed % 2**31)


class Normalize:
    """Map uint8 images (batch, channels, height, width) to normalized float32, channels last.

    channels_last is the faster memory format of convolutions on CPU and GPU alike.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take per-channel mean and standard deviation of images in [0, 1]."""
        self.mean = 255 * torch.tensor(mean).view(1, -1, 1, 1)
        self.scale = 1 / (255 * torch.tensor(std).view(1, -1, 1, 1))

    def __call__(self, images: Tensor) -> Tensor:
        """Return (images / 255 - mean) / std."""
        if self.mean.device != images.device:  # once, not in every step
            self.mean, self.scale = self.mean.to(images.device), self.scale.to(images.device)
        floats = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        return floats.sub_(self.mean).mul_(self.scale)
